//! The age identities in a file of a person, for commands that look at a working copy.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::render::Keys;

/// An identity takes a hundred bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Those in a file, whatever its name. An error names the file and nothing of what it holds.
pub fn identities(path: &Path) -> Result<Keys, String> {
    let read = || {
        let mut content = Vec::new();
        File::open(path)?.take(BYTES_MAX).read_to_end(&mut content)?;
        io::Result::Ok(content)
    };
    let content = read().map_err(|error| format!("can't read `{}`: {error}", path.display()))?;
    Keys::of_file(&path.to_string_lossy(), &content).map_err(|error| error.to_string())
}
