//! What a repository holds besides the applications: files that nobody reads, packed as on a forge.

use afresh::sandbox::repository::TestRepository;
use sha2::{Digest as _, Sha256};

use crate::git;

/// Files of a commit, and of a folder.
const BATCH: usize = 1000;

pub fn add(repository: &TestRepository, mib: usize, files: usize) -> anyhow::Result<()> {
    if mib == 0 {
        return Ok(());
    }
    let size = (mib * 1024 * 1024).div_ceil(files.max(1));
    for first in (0..files).step_by(BATCH) {
        let batch: Vec<_> = (first..files.min(first + BATCH))
            .map(|index| (format!("ballast/{:04}/{index:06}.bin", index / BATCH), noise(index, size)))
            .collect();
        let changes: Vec<_> = batch.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        repository.commit_bytes("ballast", &changes)?;
    }
    git::pack_noise(repository.path())
}

/// Bytes that cannot be compressed, other ones for each file.
fn noise(seed: usize, size: usize) -> Vec<u8> {
    let block = |counter: usize| Sha256::digest([seed.to_le_bytes(), counter.to_le_bytes()].concat());
    let mut bytes: Vec<u8> = (0..size.div_ceil(32)).flat_map(block).collect();
    bytes.truncate(size);
    bytes
}
