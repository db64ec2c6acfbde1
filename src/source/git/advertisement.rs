//! What a Git server says about itself and its refs: packets in, typed answers out. Pure.
//!
//! Version 2 (`gitprotocol-v2`) lists capabilities and is asked for refs afterwards; versions 0 and 1 (`gitprotocol-http`,
//! `gitprotocol-pack`) list all refs at once, with the capabilities behind the first one.

use bytes::Bytes;
use git2::Oid;

use super::pktline::{Packet, text};

/// Answers of `upload-pack` to the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertisement {
    V2(Capabilities),
    /// Version 0 or 1.
    V0 {
        capabilities: Capabilities,
        refs: Vec<AdvertisedRef>,
    },
}

/// Of what a server can, what matters to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Wants to hear who asks.
    pub agent: bool,
    /// Wants to hear the object format (version 2).
    pub object_format: bool,
    /// Can cut the history off.
    pub shallow: bool,
    /// Sends packs in bands of up to 64 kB (version 0; version 2 always does).
    pub side_band_64k: bool,
    pub thin_pack: bool,
    pub ofs_delta: bool,
    pub no_progress: bool,
    /// Some hosts refuse clients that don't ask for it (version 0).
    pub multi_ack_detailed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedRef {
    pub name: String,
    pub id: Oid,
    /// What an annotated tag leads to.
    pub peeled: Option<Oid>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvertisementError {
    #[error("it is a SHA-256 repository, which is not served yet")]
    Sha256,
    #[error("its first answer is not that of a Git server")]
    NotGit,
    #[error("it lists refs in a form that is not understood")]
    Refs,
    /// In the server's own words.
    #[error("{0}")]
    Refused(String),
}

impl Advertisement {
    /// Reads the answer to `GET …/info/refs?service=git-upload-pack`.
    pub fn parse(packets: &[Packet]) -> Result<Advertisement, AdvertisementError> {
        let mut lines = packets
            .iter()
            .filter_map(|packet| match packet {
                Packet::Data(bytes) => Some(bytes),
                _ => None,
            })
            .peekable();
        // Some servers announce the service also in version 2.
        let announced = lines.next_if(|line| line.starts_with(b"# service=")).is_some();
        let Some(first) = lines.peek() else {
            // An empty repository says nothing else in version 0.
            let empty = Advertisement::V0 { capabilities: Capabilities::default(), refs: Vec::new() };
            return if announced { Ok(empty) } else { Err(AdvertisementError::NotGit) };
        };
        if let Some(words) = first.strip_prefix(b"ERR ") {
            return Err(AdvertisementError::Refused(text(words)));
        }
        match text(first).as_str() {
            "version 2" => Self::parse_v2(lines.skip(1)),
            "version 1" => Self::parse_v0(lines.skip(1)),
            _ => Self::parse_v0(lines),
        }
    }

    fn parse_v2<'a>(lines: impl Iterator<Item = &'a Bytes>) -> Result<Advertisement, AdvertisementError> {
        let mut capabilities = Capabilities {
            side_band_64k: true,
            thin_pack: true,
            ofs_delta: true,
            no_progress: true,
            ..Default::default()
        };
        for line in lines.map(|line| text(line)) {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            match name {
                "agent" => capabilities.agent = true,
                "object-format" if value != "sha1" => return Err(AdvertisementError::Sha256),
                "object-format" => capabilities.object_format = true,
                "fetch" => capabilities.shallow = value.split(' ').any(|feature| feature == "shallow"),
                _ => {}
            }
        }
        Ok(Advertisement::V2(capabilities))
    }

    fn parse_v0<'a>(lines: impl Iterator<Item = &'a Bytes>) -> Result<Advertisement, AdvertisementError> {
        let mut capabilities = Capabilities::default();
        let mut refs: Vec<AdvertisedRef> = Vec::new();
        for (index, line) in lines.enumerate() {
            let line = text(line);
            if line.starts_with("shallow ") {
                continue;
            }
            let (line, words) = line.split_once('\0').unwrap_or((&line, ""));
            if index == 0 {
                capabilities = v0_capabilities(words)?;
            }
            let not_git = if index == 0 { AdvertisementError::NotGit } else { AdvertisementError::Refs };
            let (id, name) = line.split_once(' ').ok_or_else(|| not_git.clone())?;
            let id = crate::source::reference::parse_id(id).ok_or(not_git)?;
            match name.strip_suffix("^{}") {
                // An empty repository has this line instead of refs.
                Some("capabilities") => {}
                Some(tag) => {
                    if let Some(advertised) = refs.iter_mut().rev().find(|advertised| advertised.name == tag) {
                        advertised.peeled = Some(id);
                    }
                }
                None => refs.push(AdvertisedRef { name: name.to_owned(), id, peeled: None }),
            }
        }
        Ok(Advertisement::V0 { capabilities, refs })
    }
}

fn v0_capabilities(words: &str) -> Result<Capabilities, AdvertisementError> {
    let mut capabilities = Capabilities::default();
    for word in words.split(' ') {
        match word {
            "shallow" => capabilities.shallow = true,
            "side-band-64k" => capabilities.side_band_64k = true,
            "thin-pack" => capabilities.thin_pack = true,
            "ofs-delta" => capabilities.ofs_delta = true,
            "no-progress" => capabilities.no_progress = true,
            "multi_ack_detailed" => capabilities.multi_ack_detailed = true,
            "object-format=sha256" => return Err(AdvertisementError::Sha256),
            _ if word.starts_with("agent=") => capabilities.agent = true,
            _ => {}
        }
    }
    Ok(capabilities)
}

impl AdvertisedRef {
    /// Reads a line of the answer to version 2's `ls-refs`; unborn refs are none.
    pub fn parse_v2(line: &[u8]) -> Result<Option<AdvertisedRef>, AdvertisementError> {
        let line = text(line);
        let mut words = line.split(' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else { return Err(AdvertisementError::Refs) };
        if id == "unborn" {
            return Ok(None);
        }
        let parse = |id| crate::source::reference::parse_id(id).ok_or(AdvertisementError::Refs);
        let peeled = words.find_map(|word| word.strip_prefix("peeled:")).map(parse).transpose()?;
        Ok(Some(AdvertisedRef { name: name.to_owned(), id: parse(id)?, peeled }))
    }

    /// What the ref leads to, through an annotated tag.
    pub fn target(&self) -> Oid {
        self.peeled.unwrap_or(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn parse(lines: &[&str]) -> Result<Advertisement, AdvertisementError> {
        let packets: Vec<_> = lines
            .iter()
            .map(|line| if line.is_empty() { Packet::Flush } else { Packet::Data(Bytes::from(format!("{line}\n"))) })
            .collect();
        Advertisement::parse(&packets)
    }

    fn advertised(name: &str, id: &str, peeled: Option<&str>) -> AdvertisedRef {
        let parse = |text: &str| Oid::from_str(text).unwrap();
        AdvertisedRef { name: name.to_owned(), id: parse(id), peeled: peeled.map(parse) }
    }

    #[test]
    fn version_2_lists_capabilities() {
        let parsed = parse(&[
            "version 2",
            "agent=git/2.39.5",
            "ls-refs=unborn",
            "fetch=shallow filter",
            "object-format=sha1",
            "",
        ]);
        let Ok(Advertisement::V2(capabilities)) = parsed else { panic!("{parsed:?}") };
        assert!(capabilities.agent && capabilities.object_format && capabilities.shallow && capabilities.thin_pack);

        let parsed = parse(&["# service=git-upload-pack", "", "version 2", "fetch", ""]);
        let Ok(Advertisement::V2(capabilities)) = parsed else { panic!("{parsed:?}") };
        assert!(!capabilities.agent && !capabilities.object_format && !capabilities.shallow);
    }

    #[test]
    fn versions_0_and_1_list_refs() {
        let head =
            format!("{A} HEAD\0side-band-64k thin-pack ofs-delta shallow no-progress agent=git/1.8 symref=HEAD:x");
        let lines =
            [head, format!("{A} refs/heads/main"), format!("{B} refs/tags/v1"), format!("{A} refs/tags/v1^{{}}")];
        let expected = [
            advertised("HEAD", A, None),
            advertised("refs/heads/main", A, None),
            advertised("refs/tags/v1", B, Some(A)),
        ];
        for version_1 in [false, true] {
            let mut all = vec!["# service=git-upload-pack", ""];
            all.extend(version_1.then_some("version 1"));
            all.extend(lines.iter().map(String::as_str));
            all.push("");
            let Ok(Advertisement::V0 { capabilities, refs }) = parse(&all) else { panic!("{all:?}") };
            assert_eq!(refs, expected);
            assert!(capabilities.side_band_64k && capabilities.shallow && capabilities.agent);
        }
    }

    #[test]
    fn an_empty_repository_lists_no_refs() {
        let line = format!("{} capabilities^{{}}\0side-band-64k", Oid::ZERO_SHA1);
        for lines in [&[line.as_str(), ""][..], &["# service=git-upload-pack", "", ""]] {
            let Ok(Advertisement::V0 { refs, .. }) = parse(lines) else { panic!("{lines:?}") };
            assert_eq!(refs, []);
        }
    }

    #[test]
    fn what_is_not_served_is_told_apart_from_what_is_not_git() {
        let long = format!("{A}{} HEAD\0object-format=sha256", &B[..24]);
        let cases: [(&[&str], AdvertisementError); 6] = [
            (&["version 2", "object-format=sha256", ""], AdvertisementError::Sha256),
            (&[&long], AdvertisementError::Sha256),
            (&[""], AdvertisementError::NotGit),
            (&["hello"], AdvertisementError::NotGit),
            (&["hello world"], AdvertisementError::NotGit),
            (&["ERR access denied"], AdvertisementError::Refused("access denied".to_owned())),
        ];
        for (lines, expected) in cases {
            assert_eq!(parse(lines), Err(expected), "{lines:?}");
        }
    }

    #[test]
    fn refs_of_version_2_carry_their_peeled_target() {
        let parse = |line: &str| AdvertisedRef::parse_v2(line.as_bytes());
        assert_eq!(parse(&format!("{A} refs/heads/main\n")), Ok(Some(advertised("refs/heads/main", A, None))));
        let tag = parse(&format!("{B} refs/tags/v1 peeled:{A}")).unwrap().unwrap();
        assert_eq!(tag.target().to_string(), A);
        assert_eq!(parse("unborn HEAD symref-target:refs/heads/main"), Ok(None));
        assert_eq!(parse("nonsense"), Err(AdvertisementError::Refs));
        assert_eq!(parse("0123 refs/heads/main"), Err(AdvertisementError::Refs));
    }
}
