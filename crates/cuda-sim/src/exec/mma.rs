//! `mma` and `movmatrix` (9.7.14.5): fragments to matrices and back.

use super::regs::{LANES, Regs, Row, Src};
use crate::decode::Lanes;
use crate::float::convert::{half_from_f32, tf32_operand};
use crate::float::half::F16;
use crate::float::{Modifiers, lanes};

/// The type of the factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F16,
    Bf16,
    Tf32,
}

/// Rows and columns of the product.
const M: usize = 16;
const N: usize = 8;
/// The largest depth.
const K: usize = 16;

/// `d = a b + c` with fragments of registers `a`, `b`, `c`; two registers of `d` are halves, four are f32.
///
/// Products of the factors are exact in f32; sums are formed in f32 in the order of k, from the addend on. GPUs sum in
/// another order with other roundings; a kernel's error bounds must allow for both.
pub(crate) fn lanes(
    format: Format,
    k: usize,
    d: Vec<u32>,
    a: Vec<Src<u32>>,
    b: Vec<Src<u32>>,
    c: Vec<Src<u32>>,
) -> Lanes {
    let halves = d.len() == 2;
    Box::new(move |regs: &mut Regs, mask| {
        let mut left = [[0f32; K]; M];
        for (register, source) in a.iter().enumerate() {
            let values = widen(&source.fetch(regs), format);
            scatter(&values, |lane, part, value| {
                let row = lane / 4 + 8 * (register & 1);
                left[row][depth(format, lane, register >> 1, part)] = value;
            });
        }
        let mut right = [[0f32; N]; K];
        for (register, source) in b.iter().enumerate() {
            let values = widen(&source.fetch(regs), format);
            scatter(&values, |lane, part, value| right[depth(format, lane, register, part)][lane / 4] = value);
        }
        let mut sum = [[0f32; N]; M];
        if halves {
            for (register, source) in c.iter().enumerate() {
                let values = widen(&source.fetch(regs), Format::F16);
                scatter(&values, |lane, part, value| sum[lane / 4 + 8 * register][lane % 4 * 2 + part] = value);
            }
        } else {
            for (register, source) in c.iter().enumerate() {
                let values = source.fetch(regs);
                for lane in 0..LANES {
                    sum[lane / 4 + 8 * (register >> 1)][lane % 4 * 2 + (register & 1)] = f32::from_bits(values[lane]);
                }
            }
        }
        for (left, sum) in left.iter().zip(&mut sum) {
            for (a, right) in left.iter().zip(&right).take(k) {
                for (sum, b) in sum.iter_mut().zip(right) {
                    *sum += a * b;
                }
            }
        }
        for (register, &row) in d.iter().enumerate() {
            let values = std::array::from_fn(|lane| {
                if halves {
                    let sum = &sum[lane / 4 + 8 * register][lane % 4 * 2..];
                    let half = |value: f32| u32::from(half_from_f32::<F16>(canonical(value), Modifiers::RN));
                    half(sum[0]) | half(sum[1]) << 16
                } else {
                    canonical(sum[lane / 4 + 8 * (register >> 1)][lane % 4 * 2 + (register & 1)])
                }
            });
            regs.set_row(row, &values, mask);
        }
    })
}

/// Where along k the part of a register lies: two halves are neighbours, a tf32 is alone.
fn depth(format: Format, lane: usize, register: usize, part: usize) -> usize {
    if format == Format::Tf32 { lane % 4 + 4 * register } else { lane % 4 * 2 + part + 8 * register }
}

fn canonical(value: f32) -> u32 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits() }
}

/// The values in a register: one or two a lane.
struct Values {
    parts: usize,
    values: [Row; 2],
}

fn widen(row: &Row, format: Format) -> Values {
    let mut values = [[0; LANES]; 2];
    match format {
        Format::Tf32 => values[0] = row.map(tf32_operand),
        Format::Bf16 => values = [row.map(|word| word << 16), row.map(|word| word & 0xffff_0000)],
        Format::F16 => {
            lanes::widen_f16(&mut values[0], &row.map(|word| word as u16));
            lanes::widen_f16(&mut values[1], &row.map(|word| (word >> 16) as u16));
        }
    }
    Values { parts: if format == Format::Tf32 { 1 } else { 2 }, values }
}

#[inline(always)]
fn scatter(values: &Values, mut place: impl FnMut(usize, usize, f32)) {
    for (part, row) in values.values.iter().enumerate().take(values.parts) {
        for (lane, bits) in row.iter().enumerate() {
            place(lane, part, f32::from_bits(*bits));
        }
    }
}

/// `movmatrix`: the transpose of an 8 by 8 matrix of halves, two neighbours of a row in each lane.
pub(crate) fn transpose(row: &Row) -> Row {
    let element = |i: usize, j: usize| row[4 * i + j / 2] >> (16 * (j % 2)) & 0xffff;
    std::array::from_fn(|lane| {
        let (i, j) = (lane / 4, lane % 4 * 2);
        element(j, i) | element(j + 1, i) << 16
    })
}
