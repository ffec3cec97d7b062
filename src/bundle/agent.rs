//! gapscan's own image: one static binary.

use std::io::Read;
use std::path::Path;

use super::layer::LayerPlan;
use super::made::Run;
use super::oci::Platform;
use super::source::SourceError;
use crate::base::exit::ExitClass;

/// How much of the binary is looked at: its headers are at its start.
const HEAD_BYTES: u64 = 64 << 10;
/// The user that it runs as; the number that many images without a root user agree on.
const USER: u32 = 65532;

/// A static binary of gapscan.
pub struct Agent {
    /// Its layer.
    pub layer: LayerPlan,
    /// The platform that it was built for.
    pub platform: Platform,
    /// How its image is run.
    pub run: Run,
}

/// Reads the binary and refuses one that would not run in an image of its own.
///
/// # Errors
/// When it is no ELF executable for amd64 or arm64, or needs a dynamic loader.
pub fn read(path: &Path) -> Result<Agent, SourceError> {
    let refuse = |reason: String| SourceError::new(ExitClass::Usage, format!("pack `{}`: {reason}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut bytes))
        .map_err(|e| SourceError::new(ExitClass::Unreachable, format!("read `{}`", path.display())).because(e))?;
    let elf =
        Elf::parse(&bytes).ok_or_else(|| refuse("it is no 64-bit ELF executable for amd64 or arm64".to_owned()))?;
    if elf.needs_loader {
        let target = if elf.architecture == "arm64" { "aarch64" } else { "x86_64" };
        return Err(refuse(format!(
            "it needs a dynamic loader, which its image does not have; make a static one with \
             `RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target {target}-unknown-linux-gnu` \
             and name it with --agent"
        )));
    }
    let mut layer = LayerPlan::default();
    layer.add_file("gapscan", 0o755, path)?;
    layer.add_bytes(
        "etc/passwd",
        0o644,
        format!("root:x:0:0:root:/:/gapscan\ngapscan:x:{USER}:{USER}:gapscan:/:/gapscan\n"),
    );
    layer.add_bytes("etc/group", 0o644, format!("root:x:0:\ngapscan:x:{USER}:\n"));
    Ok(Agent {
        layer,
        platform: Platform { architecture: elf.architecture.to_owned(), os: "linux".to_owned(), variant: None },
        run: Run { user: Some(format!("{USER}:{USER}")), entrypoint: vec!["/gapscan".to_owned()] },
    })
}

struct Elf {
    architecture: &'static str,
    needs_loader: bool,
}

impl Elf {
    /// The few fields that matter of an ELF-64 little-endian header (System V ABI, "Object Files").
    fn parse(bytes: &[u8]) -> Option<Self> {
        const PT_INTERP: u32 = 3;
        let number = |at: usize, width: usize| {
            let field = bytes.get(at..at.checked_add(width)?)?;
            Some(field.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
        };
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let architecture = match number(18, 2)? {
            0x3e => "amd64",
            0xb7 => "arm64",
            _ => return None,
        };
        let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let mut needs_loader = false;
        for index in 0..count {
            let at = usize::try_from(offset.checked_add(index * size)?).ok()?;
            // The whole program header must be there, so that a file that was cut is not taken for one without a loader.
            bytes.get(at..at.checked_add(usize::try_from(size).ok()?)?)?;
            needs_loader |= number(at, 4)? == u64::from(PT_INTERP);
        }
        Some(Self { architecture, needs_loader })
    }
}

/// A minimal ELF file with one program header of this type, for tests.
#[cfg(test)]
pub(crate) fn sample(program_header: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18] = 0x3e;
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64..68].copy_from_slice(&program_header.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_static_binary_is_packed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gapscan");
        std::fs::write(&path, sample(1)).expect("write");
        assert_eq!(read(&path).expect("a static binary").platform.architecture, "amd64");
        std::fs::write(&path, sample(3)).expect("write");
        let message = read(&path).err().expect("a loader").to_string();
        assert!(message.contains("crt-static"), "{message}");
        std::fs::write(&path, &sample(1)[..100]).expect("write");
        assert!(read(&path).is_err());
        std::fs::write(&path, b"#!/bin/sh").expect("write");
        assert!(read(&path).is_err());
    }
}
