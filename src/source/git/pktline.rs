//! Git's packet lines: bytes in, packets out, and the other way round. Pure.
//!
//! The format is `gitprotocol-common`: four hexadecimal digits of length (counting themselves), then the payload;
//! lengths 0 to 2 are marks without a payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest packet that the protocol allows, with its length prefix.
pub const PACKET_BYTES_MAX: usize = 65_520;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Data(Bytes),
    Flush,
    Delimiter,
    ResponseEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("a packet's length is not four hexadecimal digits")]
    Length,
    #[error("a packet claims {0} bytes, which the protocol doesn't allow")]
    Size(usize),
}

/// Takes bytes as they arrive and gives packets as they become whole.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet; `None` if more bytes are needed.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, PacketError> {
        let Some(digits) = self.buffer.get(..4) else { return Ok(None) };
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(PacketError::Length);
        }
        let length = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or(PacketError::Length)?;
        let mark = match length {
            0 => Packet::Flush,
            1 => Packet::Delimiter,
            2 => Packet::ResponseEnd,
            3 => return Err(PacketError::Size(length)),
            _ if length > PACKET_BYTES_MAX => return Err(PacketError::Size(length)),
            _ if self.buffer.len() < length => return Ok(None),
            _ => {
                let mut packet = self.buffer.split_to(length);
                packet.advance(4);
                return Ok(Some(Packet::Data(packet.freeze())));
            }
        };
        self.buffer.advance(4);
        Ok(Some(mark))
    }

    /// True if no begun packet is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Builds a request body.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: BytesMut,
}

impl Encoder {
    /// One line; the newline that Git expects at its end is added.
    pub fn line(&mut self, text: &str) -> &mut Self {
        let length = text.len() + 5;
        debug_assert!(length <= PACKET_BYTES_MAX, "request lines are short");
        self.buffer.put_slice(format!("{length:04x}").as_bytes());
        self.buffer.put_slice(text.as_bytes());
        self.buffer.put_u8(b'\n');
        self
    }

    pub fn delimiter(&mut self) -> &mut Self {
        self.buffer.put_slice(b"0001");
        self
    }

    pub fn flush(&mut self) -> &mut Self {
        self.buffer.put_slice(b"0000");
        self
    }

    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }
}

/// The payload as text without the newline at its end.
pub fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.strip_suffix(b"\n").unwrap_or(payload)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<Packet>, PacketError> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        let mut packets = Vec::new();
        while let Some(packet) = decoder.next_packet()? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[test]
    fn packets_are_read_whole() {
        let data = |text: &'static str| Packet::Data(Bytes::from_static(text.as_bytes()));
        let cases: &[(&str, &[Packet])] = &[
            ("", &[]),
            ("0000", &[Packet::Flush]),
            ("00010002", &[Packet::Delimiter, Packet::ResponseEnd]),
            ("0004", &[data("")]),
            ("0006a\n0000", &[data("a\n"), Packet::Flush]),
            ("0009hello0005x00", &[data("hello"), data("x")]),
            ("000Ahel", &[]),
        ];
        for (input, expected) in cases {
            assert_eq!(decode(input.as_bytes()).as_deref(), Ok(*expected), "{input}");
        }
    }

    #[test]
    fn malformed_lengths_are_refused() {
        assert_eq!(decode(b"<htm"), Err(PacketError::Length));
        assert_eq!(decode(b"+123"), Err(PacketError::Length));
        assert_eq!(decode(b"0003"), Err(PacketError::Size(3)));
        assert_eq!(decode(b"ffff"), Err(PacketError::Size(65_535)));
    }

    #[test]
    fn a_packet_may_arrive_byte_by_byte() {
        let mut encoder = Encoder::default();
        encoder.line("want abc").delimiter().line("done").flush();
        let bytes = encoder.finish();
        let mut decoder = Decoder::default();
        let mut packets = Vec::new();
        for byte in &bytes {
            decoder.feed(&[*byte]);
            while let Some(packet) = decoder.next_packet().unwrap() {
                packets.push(packet);
            }
        }
        assert!(decoder.is_empty());
        let expected = [
            Packet::Data(Bytes::from_static(b"want abc\n")),
            Packet::Delimiter,
            Packet::Data(Bytes::from_static(b"done\n")),
            Packet::Flush,
        ];
        assert_eq!(packets, expected);
    }
}
