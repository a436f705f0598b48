//! The container that nvcc and fatbinary write: PTX and cubins for several architectures in one image.
//!
//! A header (magic, version, its own length, the payload's length) is followed by entries, each a header and its data.
//! PTX is usually a zstd frame. Every length is checked against what is there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

use crate::ptx::Target;

/// First bytes of a fatbin.
pub const MAGIC: [u8; 4] = 0xba55_ed50u32.to_le_bytes();
/// First bytes of the structure that host objects hold, which points to a fatbin.
pub const WRAPPER_MAGIC: [u8; 4] = 0x4662_43b1u32.to_le_bytes();
/// First bytes of a cubin.
pub const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// Bytes of a fatbin's header.
pub const HEADER: usize = 16;
/// Least bytes of an entry's header: up to the length of the unpacked data.
const ENTRY_HEADER: usize = 64;
/// Flag of an entry whose data is a zstd frame.
const ZSTD: u64 = 0x8000;
/// Flag of an entry whose data is compressed in the way of older compilers.
const LZ4: u64 = 0x2000;

/// Why an image is not a fatbin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fatbin: {}", self.0)
    }
}

impl std::error::Error for Error {}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PTX text.
    Ptx,
    /// A cubin.
    Elf,
    /// Something else, by its number.
    Other(u16),
}

/// One entry of a fatbin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Compute capability, as 80 or 120.
    pub arch: u32,
    flags: u64,
    raw_size: u64,
    data: &'a [u8],
}

/// Length of the fatbin that begins with this header.
///
/// # Errors
/// Where it is not such a header.
pub fn length(header: &[u8]) -> Result<usize, Error> {
    let wrong = || Error("the header is not one".into());
    if !header.starts_with(&MAGIC) || u16_at(header, 6) != Some(HEADER as u16) {
        return Err(wrong());
    }
    let payload = u64_at(header, 8).and_then(|payload| usize::try_from(payload).ok());
    payload.and_then(|payload| payload.checked_add(HEADER)).filter(|len| *len <= isize::MAX as usize).ok_or_else(wrong)
}

/// The entries of an image in order.
///
/// # Errors
/// Where a length points beyond the end.
pub fn entries(image: &[u8]) -> Result<Vec<Entry<'_>>, Error> {
    let end = length(image)?;
    let mut rest = image.get(HEADER..end).ok_or_else(|| Error("the image is shorter than its header says".into()))?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, len) = entry(rest).ok_or_else(|| Error(format!("entry {} is cut short", entries.len())))?;
        entries.push(entry);
        rest = &rest[len..];
    }
    Ok(entries)
}

/// The entry that `bytes` begins with, and its length.
fn entry(bytes: &[u8]) -> Option<(Entry<'_>, usize)> {
    let header = u32_at(bytes, 4)? as usize;
    let len = header.checked_add(usize::try_from(u64_at(bytes, 8)?).ok()?)?;
    if header < ENTRY_HEADER {
        return None;
    }
    let data = bytes.get(header..len)?;
    let kind = match u16_at(bytes, 0)? {
        1 => Kind::Ptx,
        2 => Kind::Elf,
        other => Kind::Other(other),
    };
    let (flags, raw_size) = (u64_at(bytes, 40)?, u64_at(bytes, 56)?);
    // What follows the packed bytes is padding.
    let packed = u32_at(bytes, 16)? as usize;
    let data = if flags & (ZSTD | LZ4) == 0 { data } else { data.get(..packed)? };
    Some((Entry { kind, arch: u32_at(bytes, 28)?, flags, raw_size, data }, len))
}

impl<'a> Entry<'a> {
    /// The data, unpacked.
    ///
    /// # Errors
    /// Where it cannot be unpacked.
    pub fn contents(&self) -> Result<Cow<'a, [u8]>, Error> {
        if self.flags & LZ4 != 0 {
            return Err(Error("LZ4 compression is not read; nvcc 12.8 and later write zstd".into()));
        }
        if self.flags & ZSTD == 0 {
            return Ok(Cow::Borrowed(self.data));
        }
        let mut contents = Vec::new();
        let unpacked = StreamingDecoder::new(self.data).map_err(|error| Error(error.to_string())).and_then(|frame| {
            frame.take(self.raw_size).read_to_end(&mut contents).map_err(|error| Error(error.to_string()))
        });
        match unpacked {
            Ok(len) if len as u64 == self.raw_size => Ok(Cow::Owned(contents)),
            Ok(len) => Err(Error(format!("{len} bytes were unpacked of {}", self.raw_size))),
            Err(error) => Err(error),
        }
    }

    /// The PTX text of the entry.
    ///
    /// # Errors
    /// Where it cannot be unpacked, or is not text.
    pub fn text(&self) -> Result<String, Error> {
        let contents = self.contents()?;
        let len = contents.iter().position(|byte| *byte == 0).unwrap_or(contents.len());
        String::from_utf8(contents[..len].to_vec()).map_err(|_| Error("the PTX is not text".into()))
    }
}

/// The newest PTX text that a device of compute capability `arch` can use.
///
/// # Errors
/// Where an entry that might serve cannot be unpacked.
pub fn newest_ptx(entries: &[Entry<'_>], arch: u32) -> Result<Option<String>, Error> {
    let mut candidates: Vec<_> = entries.iter().filter(|entry| entry.kind == Kind::Ptx && entry.arch <= arch).collect();
    candidates.sort_by_key(|entry| std::cmp::Reverse(entry.arch));
    for entry in candidates {
        let text = entry.text()?;
        if target(&text).is_some_and(|target| target.runs_on(arch)) {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// The `.target` of a PTX text.
fn target(text: &str) -> Option<Target> {
    Target::of(directive(text, ".target")?.split([',', ' ', '\t']).next()?)
}

/// The `.version` of a PTX text.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = directive(text, ".version")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What follows a directive that has a line of its own.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        rest.starts_with([' ', '\t']).then(|| rest.split("//").next().unwrap_or(rest).trim())
    })
}

/// Registers of a thread of each kernel, from the cubin that a device of compute capability `arch` would execute.
pub fn registers(entries: &[Entry<'_>], arch: u32) -> BTreeMap<String, u32> {
    entries
        .iter()
        .filter(|entry| entry.kind == Kind::Elf && entry.arch / 10 == arch / 10 && entry.arch <= arch)
        .max_by_key(|entry| entry.arch)
        .and_then(|entry| cubin_registers(&entry.contents().ok()?))
        .unwrap_or_default()
}

/// Registers of a thread of each kernel of a cubin: `.nv.info` gives the number for a symbol, and the `sh_info` of the
/// section `.text.NAME` is the kernel's symbol (in its lower three bytes: the upper one is the number itself up to
/// sm_89).
fn cubin_registers(elf: &[u8]) -> Option<BTreeMap<String, u32>> {
    if !elf.starts_with(&ELF_MAGIC) {
        return None;
    }
    let table = usize::try_from(u64_at(elf, 0x28)?).ok()?;
    let (size, count, names) = (u16_at(elf, 0x3a)? as usize, u16_at(elf, 0x3c)? as usize, u16_at(elf, 0x3e)? as usize);
    let header = |index: usize| elf.get(table.checked_add(index * size)?..).filter(|header| header.len() >= 64);
    let contents = |header: &[u8]| {
        let start = usize::try_from(u64_at(header, 0x18)?).ok()?;
        elf.get(start..start.checked_add(usize::try_from(u64_at(header, 0x20)?).ok()?)?)
    };
    let names = contents(header(names)?)?;
    let (mut kernels, mut counts) = (Vec::new(), BTreeMap::new());
    for index in 0..count {
        let header = header(index)?;
        let name = names.get(u32_at(header, 0)? as usize..)?;
        let name = std::str::from_utf8(&name[..name.iter().position(|byte| *byte == 0)?]).ok()?;
        if let Some(kernel) = name.strip_prefix(".text.") {
            kernels.push((kernel.to_owned(), u32_at(header, 0x2c)? & 0x00ff_ffff));
        } else if name == ".nv.info" {
            counts = register_counts(contents(header)?);
        }
    }
    Some(kernels.into_iter().filter_map(|(name, symbol)| Some((name, *counts.get(&symbol)?))).collect())
}

/// Registers by symbol: the attributes `EIATTR_REGCOUNT` of a section `.nv.info`.
fn register_counts(mut info: &[u8]) -> BTreeMap<u32, u32> {
    /// The format of attributes whose value is so many bytes long, and the attribute.
    const SIZED: u8 = 4;
    const REGCOUNT: u8 = 0x2f;
    let mut counts = BTreeMap::new();
    while let (Some([format, attribute]), Some(size)) = (bytes_at(info, 0), u16_at(info, 2)) {
        if let (REGCOUNT, Some(symbol), Some(count)) = (attribute, u32_at(info, 4), u32_at(info, 8)) {
            counts.insert(symbol, count);
        }
        let len = if format == SIZED { 4 + usize::from(size) } else { 4 };
        info = info.get(len..).unwrap_or_default();
    }
    counts
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fatbin of uncompressed entries.
    fn fatbin(entries: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (kind, arch, data) in entries {
            let mut header = [0; ENTRY_HEADER];
            header[0..2].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&(ENTRY_HEADER as u32).to_le_bytes());
            header[8..16].copy_from_slice(&(data.len() as u64).to_le_bytes());
            header[28..32].copy_from_slice(&arch.to_le_bytes());
            payload.extend(header);
            payload.extend(*data);
        }
        let mut image = MAGIC.to_vec();
        image.extend([1, 0, HEADER as u8, 0]);
        image.extend((payload.len() as u64).to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn the_newest_usable_ptx_is_chosen() {
        let image = fatbin(&[
            (1, 80, b".version 7.8\n.target sm_80\n\0\0"),
            (2, 90, b"\x7fELF"),
            (1, 90, b".version 7.8\n.target sm_90a\n"),
            (1, 100, b".version 9.0\n.target sm_100\n"),
        ]);
        let entries = entries(&image).unwrap();
        let chosen = |arch| newest_ptx(&entries, arch).unwrap().map(|text| target(&text).unwrap().arch);
        assert_eq!([75, 80, 89, 90, 99, 120].map(chosen), [None, Some(80), Some(80), Some(90), Some(80), Some(100)]);
        assert!(!entries[0].text().unwrap().contains('\0'));
    }

    #[test]
    fn every_cut_and_every_flipped_length_is_survived() {
        let image = fatbin(&[(1, 80, b".version 7.8\n.target sm_80\n"), (2, 80, b"\x7fELF and so on")]);
        for len in 0..image.len() {
            assert!(entries(&image[..len]).is_err(), "{len}");
        }
        for at in 0..image.len() {
            for bit in 0..8 {
                let mut image = image.clone();
                image[at] ^= 1 << bit;
                let Ok(entries) = entries(&image) else { continue };
                let _ = (newest_ptx(&entries, 90), registers(&entries, 80));
            }
        }
    }

    #[test]
    fn targets_and_versions_are_read() {
        let text = "// .version 1.0\n.version 8.5 // newer\n.target sm_100f, debug\n.address_size 64\n";
        assert_eq!(version(text), Some((8, 5)));
        assert_eq!(target(text), Some(Target { arch: 100, suffix: Some('f') }));
        assert_eq!(target(".target texmode_unified"), None);
    }
}
