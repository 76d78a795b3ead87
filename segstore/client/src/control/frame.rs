//! How a message stands on the wire: four bytes of length, little endian, then JSON.

use std::io;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::message::{Answer, Demand, Fault, Report, Request};

/// What is sent in one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// The longest frame, in bytes without its length.
    const LONGEST: usize;
}

/// A daemon makes room for whatever a client says.
impl Message for ToDaemon {
    const LONGEST: usize = 1 << 20;
}

/// A list of everything is long.
impl Message for ToClient {
    const LONGEST: usize = 64 << 20;
}

/// What a client sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToDaemon {
    /// A request, under a number that its answer carries.
    Request(u64, Request),
    /// The answer to a demand.
    Report(u64, Result<Report, Fault>),
}

/// What a daemon sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToClient {
    /// The answer to a request.
    Answer(u64, Result<Answer, Fault>),
    /// A demand, under a number that its report carries.
    Demand(u64, Demand),
}

/// The bytes of a message: length and JSON.
///
/// # Errors
/// The message is longer than [`Message::LONGEST`].
pub fn encode<T: Message>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = check::<T>(bytes.len() - 4)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// How many bytes follow a frame's first four.
///
/// # Errors
/// More than [`Message::LONGEST`].
pub fn length<T: Message>(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    check::<T>(length).map(|_| length)
}

fn check<T: Message>(length: usize) -> io::Result<u32> {
    let longest = T::LONGEST;
    let fits = u32::try_from(length).ok().filter(|_| length <= longest);
    fits.ok_or_else(|| {
        let text = format!("a frame of {length} bytes: the longest has {longest}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// The message in a frame's JSON.
///
/// # Errors
/// It is no such message; see [`unknown`].
pub fn decode<T: Message>(json: &[u8]) -> io::Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a message that makes no sense here: {error}"))
    })
}

/// The number of a request or a demand that is not known here: the other side is newer, and waits for an answer.
#[must_use]
pub fn unknown(json: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Asked {
        Request(u64, IgnoredAny),
        Demand(u64, IgnoredAny),
    }
    let (Asked::Request(number, _) | Asked::Demand(number, _)) = serde_json::from_slice(json).ok()?;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_a_number() {
        assert_eq!(unknown(br#"{"demand":[7,{"sing":{"name":"s"}}]}"#), Some(7));
        assert_eq!(unknown(br#"{"request":[8,"dance"]}"#), Some(8));
        assert_eq!(unknown(br#"{"answer":[8,{"Ok":"done"}]}"#), None);
        assert!(decode::<ToClient>(br#"{"demand":[7,{"sing":{"name":"s"}}]}"#).is_err());
    }
}
