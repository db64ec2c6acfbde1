//! A pack as it streams by: pieces of it in, cut anywhere; leave to go on out, or why not.
//!
//! ```text
//!  PACK version count │ (kind and size, base of a delta, zlib)… │ hash
//! ```
//!
//! Zeros compress a thousandfold, and a delta copies its base as often as it likes: a few megabytes can unfold to
//! terabytes, and libgit2 holds an object and the base of its delta in memory. So every object is looked into before
//! libgit2 sees it. Nothing is kept; hashes, deltas and the index are libgit2's part.

use flate2::{Decompress, FlushDecompress, Status};

/// What a pack may come to.
#[derive(Clone, Copy, Debug)]
pub struct PackLimits {
    pub objects: u64,
    /// Of one object, unfolded.
    pub object_bytes: u64,
    /// Of all objects, unfolded.
    pub unfolded_bytes: u64,
}

/// Why a pack is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("something that is not a pack")]
    NotAPack,
    #[error("too many objects")]
    TooManyObjects,
    #[error("an object that is too large")]
    ObjectTooLarge,
    #[error("too much when it is unfolded")]
    TooLarge,
    #[error("its pack is broken: {0}")]
    Broken(&'static str),
}

/// Bytes before the first object: the signature, the version and the number of objects.
const HEADER_BYTES: usize = 12;
/// The two sizes at the start of a delta take at most ten bytes each.
const DELTA_SIZES_BYTES: usize = 20;
const UNFOLDED_AT_ONCE: usize = 64 << 10;
/// A size or an offset of 64 bits takes no more bytes.
const NUMBER_BYTES_MAX: u32 = 10;
const ID_BYTES: usize = 20;

/// Looks into one pack.
pub struct Inspector {
    limits: PackLimits,
    part: Part,
    /// Objects that are still to come, with the present one.
    left: u32,
    unfolded: u64,
    inflate: Decompress,
    scratch: Box<[u8]>,
}

/// Where in the pack the next byte is.
enum Part {
    Header(Vec<u8>),
    /// Kind and size of an object.
    Object {
        kind: u8,
        size: u64,
        bytes: u32,
    },
    /// How far back the base of a delta is.
    Offset {
        size: u64,
        bytes: u32,
    },
    /// The id of the base of a delta.
    Id {
        size: u64,
        left: usize,
    },
    Body(Body),
    /// The hash, and whatever the server adds to it.
    End,
}

struct Body {
    /// As the object says.
    size: u64,
    unfolded: u64,
    /// The start of a delta.
    sizes: Option<Vec<u8>>,
}

const NEXT_OBJECT: Part = Part::Object { kind: 0, size: 0, bytes: 0 };

impl Inspector {
    pub fn new(limits: PackLimits) -> Inspector {
        Inspector {
            limits,
            part: Part::Header(Vec::with_capacity(HEADER_BYTES)),
            left: 0,
            unfolded: 0,
            inflate: Decompress::new(true),
            scratch: vec![0; UNFOLDED_AT_ONCE].into(),
        }
    }

    /// Whether so much has come that it can be a pack.
    pub fn has_header(&self) -> bool {
        !matches!(self.part, Part::Header(_))
    }

    /// Takes the next piece.
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), PackError> {
        while !piece.is_empty() {
            let used = match &mut self.part {
                Part::Header(_) => self.header(piece)?,
                Part::Body(_) => self.body(piece)?,
                Part::End => return Ok(()),
                _ => {
                    self.number(piece[0])?;
                    1
                }
            };
            piece = &piece[used..];
        }
        Ok(())
    }

    fn header(&mut self, piece: &[u8]) -> Result<usize, PackError> {
        const SIGNATURE: &[u8] = b"PACK";
        let Part::Header(header) = &mut self.part else { return Ok(0) };
        let used = piece.len().min(HEADER_BYTES - header.len());
        header.extend_from_slice(&piece[..used]);
        if !SIGNATURE.starts_with(&header[..header.len().min(SIGNATURE.len())]) {
            return Err(PackError::NotAPack);
        }
        if let Some(count) = header.get(8..HEADER_BYTES).and_then(|count| <[u8; 4]>::try_from(count).ok()) {
            self.left = u32::from_be_bytes(count);
            if u64::from(self.left) > self.limits.objects {
                return Err(PackError::TooManyObjects);
            }
            self.part = if self.left == 0 { Part::End } else { NEXT_OBJECT };
        }
        Ok(used)
    }

    /// One byte of what stands before an object's content.
    fn number(&mut self, byte: u8) -> Result<(), PackError> {
        let more = byte & 0x80 != 0;
        let next = match &mut self.part {
            Part::Object { kind, size, bytes } => {
                if *bytes == 0 {
                    (*kind, *size) = (byte >> 4 & 7, u64::from(byte & 15));
                } else {
                    *size |= u64::from(byte & 0x7f)
                        .checked_shl(7 * *bytes - 3)
                        .filter(|_| *bytes < NUMBER_BYTES_MAX)
                        .ok_or(PackError::Broken("an object has no size"))?;
                }
                *bytes += 1;
                if more {
                    return Ok(());
                }
                if *size > self.limits.object_bytes {
                    return Err(PackError::ObjectTooLarge);
                }
                match (*kind, *size) {
                    (1..=4, size) => Part::Body(Body { size, unfolded: 0, sizes: None }),
                    (6, size) => Part::Offset { size, bytes: 0 },
                    (7, size) => Part::Id { size, left: ID_BYTES },
                    _ => return Err(PackError::Broken("an object is of no known kind")),
                }
            }
            Part::Offset { size, bytes } => {
                *bytes += 1;
                if *bytes > NUMBER_BYTES_MAX {
                    return Err(PackError::Broken("a delta has no base"));
                }
                if more {
                    return Ok(());
                }
                Part::Body(Body { size: *size, unfolded: 0, sizes: Some(Vec::new()) })
            }
            Part::Id { size, left } => {
                *left -= 1;
                if *left > 0 {
                    return Ok(());
                }
                Part::Body(Body { size: *size, unfolded: 0, sizes: Some(Vec::new()) })
            }
            Part::Header(_) | Part::Body(_) | Part::End => return Ok(()),
        };
        self.part = next;
        Ok(())
    }

    fn body(&mut self, piece: &[u8]) -> Result<usize, PackError> {
        const BROKEN: PackError = PackError::Broken("an object can't be unfolded");
        let Part::Body(body) = &mut self.part else { return Ok(0) };
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(piece, &mut self.scratch, FlushDecompress::None).map_err(|_| BROKEN)?;
        let used = usize::try_from(self.inflate.total_in() - read).map_err(|_| BROKEN)?;
        let unfolded = self.inflate.total_out() - written;
        body.unfolded += unfolded;
        self.unfolded += unfolded;
        if body.unfolded > body.size {
            return Err(PackError::Broken("an object is longer than it says"));
        }
        if let Some(sizes) = &mut body.sizes {
            let missing = DELTA_SIZES_BYTES - sizes.len();
            sizes.extend(self.scratch.iter().take(unfolded as usize).take(missing));
        }
        if status == Status::StreamEnd {
            if body.unfolded < body.size {
                return Err(PackError::Broken("an object is shorter than it says"));
            }
            if let Some(sizes) = &body.sizes {
                let result = result_of_delta(sizes, self.limits.object_bytes)?;
                self.unfolded = self.unfolded.saturating_add(result);
            }
            self.inflate.reset(true);
            self.left -= 1;
            self.part = if self.left == 0 { Part::End } else { NEXT_OBJECT };
        } else if used == 0 && unfolded == 0 {
            return Err(BROKEN);
        }
        if self.unfolded > self.limits.unfolded_bytes {
            return Err(PackError::TooLarge);
        }
        Ok(used)
    }
}

/// The size of what a delta makes of its base; both are held in memory.
fn result_of_delta(start: &[u8], limit: u64) -> Result<u64, PackError> {
    let mut bytes = start.iter();
    let mut size = || {
        let mut size = 0_u64;
        for at in 0..NUMBER_BYTES_MAX {
            let byte = bytes.next().ok_or(PackError::Broken("a delta has no sizes"))?;
            size |= u64::from(byte & 0x7f).checked_shl(7 * at).unwrap_or(u64::MAX);
            if byte & 0x80 == 0 {
                return if size > limit { Err(PackError::ObjectTooLarge) } else { Ok(size) };
            }
        }
        Err(PackError::Broken("a delta has no sizes"))
    };
    size()?;
    size()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LIMITS: PackLimits = PackLimits { objects: 10, object_bytes: 1_000, unfolded_bytes: 3_000 };

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Kind and size as a pack has them.
    fn head(kind: u8, mut size: u64) -> Vec<u8> {
        let mut bytes = vec![kind << 4 | (size & 15) as u8];
        size >>= 4;
        while size > 0 {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push((size & 0x7f) as u8);
            size >>= 7;
        }
        bytes
    }

    fn object(kind: u8, content: &[u8]) -> Vec<u8> {
        [head(kind, content.len() as u64), zlib(content)].concat()
    }

    /// On the object before it, with these sizes of base and result.
    fn delta(sizes: &[u8]) -> Vec<u8> {
        let content = [sizes, &[1]].concat();
        [head(6, content.len() as u64), vec![0x81, 0x02], zlib(&content)].concat()
    }

    fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
        [&b"PACK\0\0\0\x02"[..], &(objects.len() as u32).to_be_bytes(), &objects.concat(), &[0; 20]].concat()
    }

    /// Whole, and byte by byte.
    fn inspect(bytes: &[u8]) -> Result<(), PackError> {
        let whole = Inspector::new(LIMITS).take(bytes);
        let mut inspector = Inspector::new(LIMITS);
        let pieces = bytes.chunks(1).try_for_each(|piece| inspector.take(piece));
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn what_a_pack_unfolds_to_is_known_before_it_is_unfolded() {
        let blob = |bytes: usize| object(3, &vec![b'x'; bytes]);
        let broken = |why| Err(PackError::Broken(why));
        // 1,000 and 1,001 in base 128
        let (fits, over) = ([0xe8, 0x07], [0xe9, 0x07]);
        let by_id = [head(7, 5), vec![7; 20], zlib(&[&fits[..], &fits, &[1]].concat())].concat();
        let cases = [
            (pack(&[]), Ok(())),
            (pack(&[blob(0), blob(15), blob(16), blob(1_000)]), Ok(())),
            (pack(&[blob(1_001)]), Err(PackError::ObjectTooLarge)),
            (pack(&vec![blob(900); 4]), Err(PackError::TooLarge)),
            (pack(&vec![blob(1); 11]), Err(PackError::TooManyObjects)),
            (pack(&[blob(10), delta(&[10, 20]), by_id]), Ok(())),
            (pack(&[blob(10), delta(&[&[10][..], &over].concat())]), Err(PackError::ObjectTooLarge)),
            (pack(&[blob(10), delta(&[&over[..], &[10]].concat())]), Err(PackError::ObjectTooLarge)),
            (pack(&vec![delta(&[&fits[..], &fits].concat()); 3]), Err(PackError::TooLarge)),
            (pack(&[[head(3, 900), zlib(&[0; 1_000])].concat()]), broken("an object is longer than it says")),
            (pack(&[[head(3, 900), zlib(&[0; 800])].concat()]), broken("an object is shorter than it says")),
            (pack(&[[head(6, 1), vec![1], zlib(&[0x80])].concat()]), broken("a delta has no sizes")),
            (pack(&[[head(6, 1), vec![0xff; 20]].concat()]), broken("a delta has no base")),
            (
                pack(&[vec![0xb0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]),
                broken("an object has no size"),
            ),
            (pack(&[object(5, b"x")]), broken("an object is of no known kind")),
            (pack(&[[head(3, 9), b"no zlib at all".to_vec()].concat()]), broken("an object can't be unfolded")),
            (b"<html>".to_vec(), Err(PackError::NotAPack)),
            (b"PACK\0\0".to_vec(), Ok(())),
        ];
        for (number, (bytes, expected)) in cases.into_iter().enumerate() {
            assert_eq!(inspect(&bytes), expected, "case {number}");
        }
    }

    #[test]
    fn real_packs_pass() {
        let folder = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init_bare(folder.path()).unwrap();
        let mut builder = repository.packbuilder().unwrap();
        for number in 0..20_u32 {
            let text: String = (0..200).map(|line| format!("line {}\n", line + number / 10)).collect();
            builder.insert_object(repository.blob(text.as_bytes()).unwrap(), None).unwrap();
        }
        let mut bytes = git2::Buf::new();
        builder.write_buf(&mut bytes).unwrap();
        let limits = PackLimits { objects: 100, object_bytes: 10_000, unfolded_bytes: 1 << 20 };
        for size in [1, 7, bytes.len()] {
            let mut inspector = Inspector::new(limits);
            bytes.chunks(size).try_for_each(|piece| inspector.take(piece)).unwrap();
            assert!(matches!(inspector.part, Part::End));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Inspector::new(LIMITS).take(&[&b"PACK\0\0\0\x02\0\0\0\x05"[..], &bytes].concat());
        }
    }
}
