//! The registers of a warp: one row of 32 lanes for each 32-bit register.
//!
//! A 64-bit register is two rows, low halves first, so that packing and unpacking are copies of rows. A 16-bit register
//! is a row whose high halves are zero. Predicates are masks, one bit a lane.

/// Lanes of a warp.
pub const LANES: usize = 32;

/// One 32-bit value for every lane.
pub type Row = [u32; LANES];

/// What an uninitialised register holds: a NaN, or an index far out of bounds.
pub const POISON: u32 = 0xffff_dead;

/// The registers of a warp.
#[derive(Clone, Default)]
pub struct Regs {
    rows: Vec<Row>,
    preds: Vec<u32>,
}

impl Regs {
    /// Poisons every register, of which there are so many from now on.
    pub fn reset(&mut self, rows: usize, preds: usize) {
        self.rows.clear();
        self.rows.resize(rows, [POISON; LANES]);
        self.preds.clear();
        self.preds.resize(preds, 0);
    }

    /// A row.
    #[inline(always)]
    pub fn row(&self, row: u32) -> &Row {
        &self.rows[row as usize]
    }

    /// Replaces the lanes of `mask` in a row.
    #[inline(always)]
    pub fn set_row(&mut self, row: u32, new: &Row, mask: u32) {
        let old = &mut self.rows[row as usize];
        if mask == !0 {
            *old = *new;
        } else {
            for lane in 0..LANES {
                let keep = (mask >> lane & 1).wrapping_sub(1);
                old[lane] = new[lane] & !keep | old[lane] & keep;
            }
        }
    }

    /// A predicate's mask.
    #[inline(always)]
    pub fn pred(&self, pred: u32) -> u32 {
        self.preds[pred as usize]
    }

    /// Replaces the lanes of `mask` in a predicate.
    #[inline(always)]
    pub fn set_pred(&mut self, pred: u32, new: u32, mask: u32) {
        let old = &mut self.preds[pred as usize];
        *old = new & mask | *old & !mask;
    }

    /// A register of every lane, as values of the type.
    #[inline(always)]
    pub fn get<T: Value>(&self, row: u32) -> [T; LANES] {
        T::get(self, row)
    }

    /// Replaces the lanes of `mask` in a register.
    #[inline(always)]
    pub fn put<T: Value>(&mut self, row: u32, new: &[T; LANES], mask: u32) {
        T::put(self, row, new, mask);
    }
}

/// A type that a register's bits can be read as.
pub trait Value: Copy + Default + Send + Sync + 'static {
    /// 32-bit rows that it takes.
    const ROWS: u32;
    /// From the low and the high half.
    fn join(low: u32, high: u32) -> Self;
    /// To the low and the high half.
    fn split(self) -> (u32, u32);

    /// Reads all lanes.
    #[inline(always)]
    fn get(regs: &Regs, row: u32) -> [Self; LANES] {
        let low = regs.row(row);
        let high = if Self::ROWS == 2 { regs.row(row + 1) } else { low };
        // Loops over lanes, here and elsewhere: `array::from_fn` and `map` are not inlined at this length.
        let mut values = [Self::default(); LANES];
        for lane in 0..LANES {
            values[lane] = Self::join(low[lane], high[lane]);
        }
        values
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    fn put(regs: &mut Regs, row: u32, new: &[Self; LANES], mask: u32) {
        let mut halves = [[0; LANES]; 2];
        for lane in 0..LANES {
            (halves[0][lane], halves[1][lane]) = new[lane].split();
        }
        regs.set_row(row, &halves[0], mask);
        if Self::ROWS == 2 {
            regs.set_row(row + 1, &halves[1], mask);
        }
    }
}

macro_rules! value {
    ($($ty:ty, $rows:literal, |$low:ident, $high:ident| $join:expr, |$value:ident| $split:expr;)*) => {$(
        impl Value for $ty {
            const ROWS: u32 = $rows;
            #[inline(always)]
            fn join($low: u32, $high: u32) -> Self {
                $join
            }
            #[inline(always)]
            fn split(self) -> (u32, u32) {
                let $value = self;
                $split
            }
        }
    )*};
}

value! {
    u8, 1, |low, _high| low as u8, |value| (value.into(), 0);
    i8, 1, |low, _high| low as i8, |value| (u32::from(value as u8), 0);
    u16, 1, |low, _high| low as u16, |value| (value.into(), 0);
    i16, 1, |low, _high| low as i16, |value| (u32::from(value as u16), 0);
    u32, 1, |low, _high| low, |value| (value, 0);
    i32, 1, |low, _high| low as i32, |value| (value as u32, 0);
    f32, 1, |low, _high| f32::from_bits(low), |value| (value.to_bits(), 0);
    u64, 2, |low, high| u64::from(low) | u64::from(high) << 32, |value| (value as u32, (value >> 32) as u32);
    i64, 2, |low, high| u64::join(low, high) as i64, |value| (value as u64).split();
    f64, 2, |low, high| f64::from_bits(u64::join(low, high)), |value| value.to_bits().split();
}

/// A source operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Src<T> {
    /// The register that begins at this row.
    Row(u32),
    /// The same value in every lane.
    Imm(T),
}

impl<T: Value> Src<T> {
    /// The value in every lane.
    #[inline(always)]
    pub fn fetch(&self, regs: &Regs) -> [T; LANES] {
        match *self {
            Self::Row(row) => regs.get(row),
            Self::Imm(value) => [value; LANES],
        }
    }
}

impl Src<u64> {
    /// The value in every lane; unless `wide`, of a register that is one row.
    pub fn fetch_word_or_two(&self, regs: &Regs, wide: bool) -> [u64; LANES] {
        match *self {
            Self::Row(row) if !wide => {
                let (row, mut values) = (regs.row(row), [0; LANES]);
                for lane in 0..LANES {
                    values[lane] = row[lane].into();
                }
                values
            }
            _ => self.fetch(regs),
        }
    }

    /// The two words, the low one first.
    pub fn words(self) -> [Src<u32>; 2] {
        match self {
            Self::Row(row) => [Src::Row(row), Src::Row(row + 1)],
            Self::Imm(value) => <[u32; 2]>::from(value.split()).map(Src::Imm),
        }
    }
}

/// A predicate operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredSrc {
    /// Which; nothing for a constant.
    pub index: Option<u32>,
    /// Inverted? For a constant, its value.
    pub negated: bool,
}

impl PredSrc {
    /// The mask of lanes where it holds.
    #[inline(always)]
    pub fn fetch(self, regs: &Regs) -> u32 {
        let flip = 0u32.wrapping_sub(self.negated.into());
        self.index.map_or(0, |index| regs.pred(index)) ^ flip
    }
}

/// The lanes of a mask, lowest first.
#[inline(always)]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}
