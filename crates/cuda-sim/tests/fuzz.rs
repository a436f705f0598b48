//! Damaged PTX: whatever it says, it is refused or executed, and nothing panics.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use cudrift_sim::device::{Device, Profile};
use cudrift_sim::launch::{Launch, run};
use cudrift_sim::program::Program;
use support::{Random, ptx};

/// Kernels with many kinds of instructions, and macros that they need.
const FILES: [(&str, &[&str]); 14] = [
    ("atomics.cu", &[]),
    ("barriers.cu", &[]),
    ("calls.cu", &[]),
    ("divergence.cu", &[]),
    ("f64.cu", &[]),
    ("faults_sync.cu", &["-DFAULT=1"]),
    ("gemm_f16.cu", &[]),
    ("half.cu", &[]),
    ("histogram.cu", &[]),
    ("integers.cu", &[]),
    ("mma.cu", &[]),
    ("softmax.cu", &[]),
    ("spaces.cu", &[]),
    ("warp.cu", &[]),
];

/// Numbers that stand at the edge of something.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "31",
    "32",
    "33",
    "64",
    "255",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967295",
    "18446744073709551615",
    "0x7fffffffffffffff",
];

/// Damages a text in a few places: words are swapped with others of the same text, numbers replaced, lines lost,
/// doubled or moved, characters lost, the end cut off.
fn damaged(text: &str, random: &mut Random) -> String {
    let mut below = |n: usize| (random.bits() % n.max(1) as u64) as usize;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..1 + below(4) {
        let (at, other) = (below(lines.len()), below(lines.len()));
        match below(8) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(other.min(at), lines[at].clone()),
            2 => lines.swap(at, other),
            3 => lines.truncate(at.max(8)),
            4 => {
                let cut = below(lines[at].len());
                if lines[at].is_char_boundary(cut) {
                    lines[at].truncate(cut);
                }
            }
            kind => {
                let words = |line: &str| -> Vec<String> {
                    line.split_inclusive([' ', ',', ';', '.', '[', ']', '{', '}']).map(str::to_owned).collect()
                };
                let (mut here, there) = (words(&lines[at]), words(&lines[other]));
                if here.is_empty() || there.is_empty() {
                    continue;
                }
                let place = below(here.len());
                here[place] = match kind {
                    5 => format!("{}{}", NUMBERS[below(NUMBERS.len())], here[place].chars().last().unwrap_or(' ')),
                    _ => there[below(there.len())].clone(),
                };
                lines[at] = here.concat();
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

/// Loads a text, and launches what it holds with arguments that mean nothing or lie in an allocation. How many
/// kernels ran, well or not?
fn try_out(text: &str, random: &mut Random) -> usize {
    let mut device = Device::new(Profile::of(80).expect("sm_80"));
    (device.watchdog, device.workers) = (1 << 12, 1);
    let Ok(program) = Program::load(&device, text) else { return 0 };
    let room = device.memory.alloc(1 << 16).expect("device memory");
    device.memory.fill(room, &[1], 1 << 16).expect("an allocation");
    for kernel in program.kernels() {
        // Launches are refused by the driver beyond these.
        if kernel.shared > 48 << 10 || kernel.local > 1 << 16 {
            continue;
        }
        let mut params = vec![0; kernel.param_bytes as usize];
        for word in params.chunks_exact_mut(8) {
            let value = if random.bits().is_multiple_of(4) { random.bits() } else { room + random.bits() % 64 * 16 };
            word.copy_from_slice(&value.to_le_bytes());
        }
        let block = kernel.required_block.unwrap_or([33, 1, 1]);
        let launch = Launch { kernel, grid: [2, 1, 1], block, shared: 256, params: &params, cooperative: false };
        let _ = run(&device, &launch);
    }
    program.kernels().len()
}

fn fuzz(seed: u64, time: Duration) {
    let texts = FILES.map(|(file, macros)| ptx(file, macros));
    let begin = Instant::now();
    let (mut tried, mut ran) = (0u64, 0);
    // What panics is told below, once.
    std::panic::set_hook(Box::new(|_| ()));
    while begin.elapsed() < time {
        let mut random = Random::new(seed + tried);
        let text = damaged(&texts[tried as usize % texts.len()], &mut random);
        match catch_unwind(AssertUnwindSafe(|| try_out(&text, &mut random))) {
            Ok(kernels) => ran += kernels,
            Err(panic) => {
                drop(std::panic::take_hook());
                let file = std::env::temp_dir().join("cudrift-fuzz.ptx");
                std::fs::write(&file, &text).expect("to keep the text");
                let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                panic!("seed {}: {:?}; the text is in {}", seed + tried, said, file.display());
            }
        }
        tried += 1;
    }
    drop(std::panic::take_hook());
    println!("{tried} damaged texts, of which {ran} kernels were executed");
    assert!(tried > 50 && ran > 50, "{tried} texts, {ran} kernels");
}

#[test]
fn damaged_ptx_is_refused_or_executed() {
    fuzz(1, Duration::from_secs(5));
}

#[test]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
fn much_damaged_ptx_is_refused_or_executed() {
    fuzz(1 << 32, Duration::from_secs(120));
}
