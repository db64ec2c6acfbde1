//! The age identities that open data keys.

use std::fmt;
use std::io::Read as _;

use age::armor::ArmoredReader;
use age::{Decryptor, Identity, IdentityFile};
use zeroize::Zeroizing;

use super::metadata::Metadata;

/// How the entries of a Secret end that hold age identities.
const AGE_EXTENSION: &str = ".agekey";
/// Identities of one application; each is tried with each recipient of each file.
const IDENTITIES_MAX: usize = 64;
/// A data key has 32 bytes; whatever is longer is none.
const DATA_KEY_BYTES_MAX: u64 = 64;

/// Identities of age.
#[derive(Default)]
pub struct Keys(Vec<Box<dyn Identity + Send + Sync>>);

/// There are no identities, or too many.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("`{name}` holds no age identity: lines `AGE-SECRET-KEY-1…` were expected")]
    NoIdentity { name: String },
    #[error("more than {IDENTITIES_MAX} age identities")]
    TooMany,
}

impl Keys {
    /// The identities of a Secret's entries whose names end in `.agekey`; other entries are for other tools.
    pub fn of<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (entry, content) in entries {
            if !entry.ends_with(AGE_EXTENSION) {
                continue;
            }
            let Self(more) = Self::of_file(entry, content)?;
            keys.extend(more);
            if keys.len() > IDENTITIES_MAX {
                return Err(KeyError::TooMany);
            }
        }
        Ok(Self(keys))
    }

    /// The identities of one file, whatever its name.
    pub fn of_file(name: &str, content: &[u8]) -> Result<Self, KeyError> {
        let file = IdentityFile::from_buffer(content)
            .and_then(|file| file.into_identities().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData)));
        match file {
            Ok(identities) if identities.len() > IDENTITIES_MAX => Err(KeyError::TooMany),
            Ok(identities) if !identities.is_empty() => Ok(Self(identities)),
            _ => Err(KeyError::NoIdentity { name: name.to_owned() }),
        }
    }

    /// The data key of a file.
    pub(super) fn open(&self, metadata: &Metadata) -> Result<Zeroizing<Vec<u8>>, String> {
        for recipient in &metadata.recipients {
            let armoured = ArmoredReader::new(recipient.data_key.as_bytes());
            let Ok(decryptor) = Decryptor::new_buffered(armoured) else { continue };
            let identities = self.0.iter().map(|identity| &**identity as &dyn Identity);
            let Ok(reader) = decryptor.decrypt(identities) else { continue };
            let mut key = Zeroizing::new(Vec::new());
            if reader.take(DATA_KEY_BYTES_MAX).read_to_end(&mut key).is_ok() {
                return Ok(key);
            }
        }
        let names: Vec<String> = metadata.recipients.iter().map(|r| format!("`{}`", r.name)).collect();
        Err(match self.0.len() {
            0 => format!("there is no age identity; the file is encrypted for {}", names.join(", ")),
            1 => format!("the age identity opens nothing here; the file is encrypted for {}", names.join(", ")),
            n => format!("none of the {n} age identities opens the file, which is encrypted for {}", names.join(", ")),
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}
