//! Fetches one commit without its history into a generation of the cache: ids in, a pack on disk.
//!
//! ```text
//!  server ── packets ──→ bands ── pack bytes ──→ bounded channel ──→ a blocking thread: index, resolve deltas, write
//!            (async: deadline, idle, byte limit)                     (what it unfolds to, stop flag)
//! ```
//!
//! What is held already is offered, so that the server sends the difference alone.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use git2::{ErrorClass, Oid};
use tokio::sync::mpsc;

use super::advertisement::Capabilities;
use super::client::{Client, Version, command};
use super::pack::{Inspector, PackError, PackLimits};
use super::packets::Packets;
use super::pktline::{Encoder, Packet};
use crate::source::attempt::Attempt;
use crate::source::cache::Generation;
use crate::source::error::SourceError;

/// What one fetch may bring.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// Of the answer, compressed.
    pub bytes: u64,
    pub pack: PackLimits,
}

impl Default for FetchLimits {
    /// Ten times the largest repositories of manifests that we know of, and small enough for a node's disk. One object
    /// and the base of its delta are in memory at once; forges refuse files of more than 100 MiB.
    fn default() -> Self {
        let pack = PackLimits { objects: 5_000_000, object_bytes: 128 << 20, unfolded_bytes: 4 << 30 };
        FetchLimits { bytes: 2 << 30, pack }
    }
}

/// So many packets of at most 64 kB wait for the disk; then the server waits.
const PIECES_WAITING_MAX: usize = 16;

/// How long the end of an answer is waited for after its last packet.
const DRAIN_MAX: Duration = Duration::from_millis(200);

enum Piece {
    Pack(Bytes),
    End,
}

/// Why the blocking half failed.
enum WriteError {
    Stopped,
    Refused(PackError),
    /// libgit2 can't make sense of it.
    Broken(String),
    Store(String),
}

impl Client {
    /// Makes `want` present in the generation.
    pub async fn fetch(
        &self,
        want: Oid,
        generation: &Arc<Generation>,
        limits: FetchLimits,
        attempt: &Attempt,
    ) -> Result<(), SourceError> {
        let session = self.session(attempt).await?;
        let (version, offered) = (session.server.version, Arc::clone(&session.server.capabilities));
        let held = generation.tips();
        let (request, head): (_, fn(&[u8]) -> Band) = match version {
            Version::V2 => (request_v2(&offered, want, &held), Band::head_v2),
            Version::V0 if offered.side_band_64k => (request_v0(&offered, want, &held), Band::head_v0),
            Version::V0 => {
                let reason = "the server's Git is too old (it lacks `side-band-64k`)".to_owned();
                return Err(SourceError::Unsupported { url: attempt.url.clone(), reason });
            }
        };
        let result = match self.ask(session, request, limits.bytes, attempt).await {
            Ok(packets) => self.receive(packets, head, want, generation, limits, attempt).await,
            Err(error) => Err(error),
        };
        if matches!(result, Err(SourceError::Protocol { .. })) {
            self.forget();
        }
        result
    }

    async fn receive(
        &self,
        mut packets: Packets,
        head: fn(&[u8]) -> Band,
        want: Oid,
        generation: &Arc<Generation>,
        limits: FetchLimits,
        attempt: &Attempt,
    ) -> Result<(), SourceError> {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        // However this function is left, the blocking half hears of it, also while it reads nothing.
        let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
        let writer = tokio::task::spawn_blocking({
            let (generation, stop) = (Arc::clone(generation), Arc::clone(&stop.0));
            move || write_pack(&generation, want, waiting, limits.pack, &stop)
        });
        let sent = self.forward(&mut packets, head, want, &pieces, attempt).await;
        // If the blocking half failed, its reason is the better one; otherwise the server's failure is.
        if let Err(Some(error)) = sent {
            return Err(error);
        }
        let written = attempt.run("storing its objects", writer).await?;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WriteError::Stopped)) => Err(attempt.protocol("its pack broke off")),
            Ok(Err(WriteError::Refused(error))) => Err(refused(error, limits.pack, attempt)),
            Ok(Err(WriteError::Broken(reason))) => Err(attempt.protocol(format!("its pack is broken: {reason}"))),
            Ok(Err(WriteError::Store(reason))) => Err(attempt.store(reason)),
            Err(_) => Err(attempt.store("the thread that stores objects died")),
        }
    }

    /// Reads the answer to its end. `Err(None)`: the blocking half has stopped listening.
    async fn forward(
        &self,
        packets: &mut Packets,
        head: fn(&[u8]) -> Band,
        want: Oid,
        pieces: &mpsc::Sender<Piece>,
        attempt: &Attempt,
    ) -> Result<(), Option<SourceError>> {
        let mut in_pack = false;
        let mut got_pack = false;
        while let Some(packet) = packets.next(attempt).await? {
            let Packet::Data(line) = packet else {
                // Marks end sections; the pack is the last one.
                if in_pack {
                    break;
                }
                continue;
            };
            let band = if in_pack { Band::of(&line) } else { head(&line) };
            match band {
                Band::Head => {}
                Band::PackFollows => in_pack = true,
                Band::Pack => {
                    in_pack = true;
                    got_pack = true;
                    let sent = pieces.send(Piece::Pack(line.slice(1..)));
                    if attempt.run("storing its objects", sent).await?.is_err() {
                        return Err(None);
                    }
                }
                Band::Progress => in_pack = true,
                Band::Failure => return Err(Some(self.refusal(&line, want, attempt))),
                Band::Unknown => return Err(Some(attempt.protocol("its answer to a fetch is not understood"))),
            }
        }
        if !got_pack {
            return Err(Some(attempt.protocol("it sent no pack")));
        }
        if attempt.run("storing its objects", pieces.send(Piece::End)).await?.is_err() {
            return Err(None);
        }
        // An answer that was read to its end leaves a connection that can be used again; nothing else hangs on it.
        let _ = tokio::time::timeout(DRAIN_MAX, packets.next(attempt)).await;
        Ok(())
    }

    fn refusal(&self, line: &[u8], want: Oid, attempt: &Attempt) -> SourceError {
        let words = line.strip_prefix(b"ERR ").or_else(|| line.get(1..)).unwrap_or_default();
        let words = self.scrub(words);
        // What upload-pack says to an id that it doesn't have or doesn't show.
        if words.contains("not our ref") || words.contains("unadvertised object") {
            return SourceError::CommitNotFound { url: attempt.url.clone(), commit: want, pinned: false };
        }
        attempt.protocol(format!("it refuses the fetch: {words}"))
    }
}

fn refused(error: PackError, limits: PackLimits, attempt: &Attempt) -> SourceError {
    let (limit, unit) = match error {
        PackError::NotAPack => return attempt.protocol("it sent something that is not a pack"),
        PackError::Broken(_) => return attempt.protocol(error.to_string()),
        PackError::TooManyObjects => (limits.objects, "objects"),
        PackError::ObjectTooLarge => (limits.object_bytes, "bytes in one object"),
        PackError::TooLarge => (limits.unfolded_bytes, "bytes, unpacked"),
    };
    SourceError::TooLarge { url: attempt.url.clone(), limit, unit }
}

/// What a line of the answer is.
#[derive(Debug, PartialEq, Eq)]
enum Band {
    /// Before the pack: acknowledgements and where the history was cut.
    Head,
    /// Bands begin after this line.
    PackFollows,
    Pack,
    Progress,
    Failure,
    Unknown,
}

impl Band {
    fn of(line: &[u8]) -> Band {
        match line.first() {
            Some(1) => Band::Pack,
            Some(2) => Band::Progress,
            Some(3) => Band::Failure,
            _ if line.starts_with(b"ERR ") => Band::Failure,
            _ => Band::Unknown,
        }
    }

    /// Version 2 names its sections; the pack's comes last.
    fn head_v2(line: &[u8]) -> Band {
        match line.strip_suffix(b"\n").unwrap_or(line) {
            b"packfile" => Band::PackFollows,
            _ if line.starts_with(b"ERR ") => Band::Failure,
            _ => Band::Head,
        }
    }

    /// Versions 0 and 1 go over to bands without a word.
    fn head_v0(line: &[u8]) -> Band {
        let head: [&[u8]; 4] = [b"shallow ", b"unshallow ", b"ACK ", b"NAK"];
        if head.iter().any(|prefix| line.starts_with(prefix)) { Band::Head } else { Band::of(line) }
    }
}

fn request_v2(offered: &Capabilities, want: Oid, held: &[Oid]) -> Bytes {
    let mut body = Encoder::default();
    command(&mut body, "fetch", offered);
    body.line("thin-pack").line("no-progress").line("ofs-delta");
    if offered.shallow {
        for tip in held {
            body.line(&format!("shallow {tip}"));
        }
        body.line("deepen 1");
    }
    body.line(&format!("want {want}"));
    for tip in held {
        body.line(&format!("have {tip}"));
    }
    body.line("done").flush();
    body.finish()
}

fn request_v0(offered: &Capabilities, want: Oid, held: &[Oid]) -> Bytes {
    let mut features = vec!["side-band-64k"];
    features.extend(offered.thin_pack.then_some("thin-pack"));
    features.extend(offered.ofs_delta.then_some("ofs-delta"));
    features.extend(offered.multi_ack_detailed.then_some("multi_ack_detailed"));
    features.extend(offered.no_progress.then_some("no-progress"));
    features.extend(offered.agent.then_some(concat!("agent=git/2.0-afresh/", env!("CARGO_PKG_VERSION"))));
    let mut body = Encoder::default();
    body.line(&format!("want {want} {}", features.join(" ")));
    if offered.shallow {
        for tip in held {
            body.line(&format!("shallow {tip}"));
        }
        body.line("deepen 1");
    }
    body.flush();
    for tip in held {
        body.line(&format!("have {tip}"));
    }
    body.line("done");
    body.finish()
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The blocking half. What was begun and not finished is removed by the indexer's drop.
fn write_pack(
    generation: &Generation,
    want: Oid,
    mut pieces: mpsc::Receiver<Piece>,
    limits: PackLimits,
    stop: &Arc<AtomicBool>,
) -> Result<(), WriteError> {
    // Where nothing was held, nothing of ours can be what is broken.
    let ours = !generation.tips().is_empty();
    let failed = |reason: &str, is_ours: bool| match stop.load(Ordering::Relaxed) {
        true => WriteError::Stopped,
        false if is_ours => WriteError::Store(reason.to_owned()),
        false => WriteError::Broken(reason.to_owned()),
    };
    let git = |error: &git2::Error| {
        let system = matches!(error.class(), ErrorClass::Os | ErrorClass::Filesystem | ErrorClass::NoMemory);
        failed(error.message(), ours || system)
    };
    let mut inspector = Inspector::new(limits);
    let mut indexer = generation.indexer().map_err(|error| git(&error))?;
    let progress_stop = Arc::clone(stop);
    indexer.progress(move |_| !progress_stop.load(Ordering::Relaxed));
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Pack(bytes)) => {
                inspector.take(&bytes).map_err(WriteError::Refused)?;
                indexer.write_all(&bytes).map_err(|error| match error.get_ref().and_then(|e| e.downcast_ref()) {
                    Some(error) => git(error),
                    None => failed(&error.to_string(), true),
                })?;
            }
            Some(Piece::End) => break,
            None => return Err(WriteError::Stopped),
        }
    }
    if !inspector.has_header() {
        return Err(WriteError::Refused(PackError::NotAPack));
    }
    let name = indexer.commit().map_err(|error| git(&error))?;
    match generation.adopt(&name, want) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("it lacks the commit that was asked for", ours)),
        Err(error) => Err(failed(&error.reason, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_answers_are_told_apart() {
        let cases: [(&[u8], Band, Band); 9] = [
            (b"shallow-info\n", Band::Head, Band::Unknown),
            (b"shallow 0123\n", Band::Head, Band::Head),
            (b"NAK\n", Band::Head, Band::Head),
            (b"ACK 0123\n", Band::Head, Band::Head),
            (b"packfile\n", Band::PackFollows, Band::Unknown),
            (b"\x01PACK", Band::Head, Band::Pack),
            (b"\x02counting", Band::Head, Band::Progress),
            (b"ERR not our ref", Band::Failure, Band::Failure),
            (b"\x03died", Band::Head, Band::Failure),
        ];
        for (line, v2, v0) in cases {
            assert_eq!((Band::head_v2(line), Band::head_v0(line)), (v2, v0), "{line:?}");
        }
        assert_eq!(Band::of(b"\x01"), Band::Pack);
        assert_eq!(Band::of(b"NAK"), Band::Unknown);
    }

    #[test]
    fn requests_offer_what_is_held() {
        let capabilities = Capabilities {
            shallow: true,
            side_band_64k: true,
            thin_pack: true,
            ofs_delta: true,
            ..Capabilities::default()
        };
        let id = |digit: &str| Oid::from_str(&digit.repeat(40)).unwrap();
        let lines = |body: Bytes| {
            let mut decoder = crate::source::git::pktline::Decoder::default();
            decoder.feed(&body);
            std::iter::from_fn(|| decoder.next_packet().unwrap())
                .map(|packet| match packet {
                    Packet::Data(line) => String::from_utf8_lossy(&line).trim_end().replace(&"a".repeat(39), ""),
                    mark => format!("{mark:?}"),
                })
                .collect::<Vec<_>>()
                .join("|")
        };
        let (want, held) = (id("a"), [id("a")]);
        let v2 = "command=fetch|Delimiter|thin-pack|no-progress|ofs-delta|shallow a|deepen 1|want a|have a|done|Flush";
        let v0 = "want a side-band-64k thin-pack ofs-delta|shallow a|deepen 1|Flush|have a|done";
        assert_eq!(lines(request_v2(&capabilities, want, &held)), v2);
        assert_eq!(lines(request_v0(&capabilities, want, &held)), v0);

        let without = Capabilities { shallow: false, ..capabilities };
        assert!(!lines(request_v2(&without, want, &held)).contains("deepen"), "the whole history, then");
    }
}
