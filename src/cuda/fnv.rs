//! FNV-1a in 128 bits: names for contents. It tells versions and damage apart, not forgeries. build.rs shares this file.

/// The hash of the parts and of where each ends.
pub fn fnv(parts: &[&[u8]]) -> u128 {
    let eat =
        |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    parts.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, part| {
        part.iter().chain(&(part.len() as u64).to_le_bytes()).fold(hash, eat)
    })
}
