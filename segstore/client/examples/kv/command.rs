//! Commands, as far as a key-value server needs them.

use redis_protocol::resp2::types::OwnedFrame as Frame;

type Bytes = Vec<u8>;

/// What a client wants.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Get(Bytes),
    GetMany(Vec<Bytes>),
    /// `only_if` the key exists (true), or does not.
    Set {
        key: Bytes,
        value: Bytes,
        only_if: Option<bool>,
    },
    SetMany(Vec<(Bytes, Bytes)>),
    Delete(Vec<Bytes>),
    Exists(Vec<Bytes>),
    Add(Bytes, i64),
    Size,
    Scan {
        after: Option<Bytes>,
        most: usize,
        pattern: Bytes,
    },
    Keys(Bytes),
    Clear,
    Info,
    /// The answer is known already.
    Say(Frame),
}

impl Command {
    /// Whether it needs a transaction that writes.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Set { .. } | Self::SetMany(_) | Self::Delete(_) | Self::Add(..) | Self::Clear)
    }

    /// What a frame asks for; what cannot be served is answered with an error.
    pub(crate) fn parse(frame: Frame) -> Self {
        let words = match frame {
            Frame::Array(frames) => frames.into_iter().filter_map(word).collect::<Vec<_>>(),
            other => word(other).into_iter().collect(),
        };
        parse(words).unwrap_or_else(|error| Self::Say(Frame::Error(error)))
    }
}

fn word(frame: Frame) -> Option<Bytes> {
    match frame {
        Frame::BulkString(bytes) | Frame::SimpleString(bytes) => Some(bytes),
        _ => None,
    }
}

fn parse(words: Vec<Bytes>) -> Result<Command, String> {
    let mut words = words.into_iter();
    let name = words.next().map(|name| String::from_utf8_lossy(&name).to_ascii_uppercase()).unwrap_or_default();
    let rest: Vec<Bytes> = words.collect();
    let wrong = || format!("ERR wrong number of arguments for '{}' command", name.to_ascii_lowercase());
    let one = || rest.first().cloned().ok_or_else(wrong);
    let some = || if rest.is_empty() { Err(wrong()) } else { Ok(rest.clone()) };
    let say = |text: &str| Command::Say(Frame::SimpleString(text.as_bytes().to_vec()));
    Ok(match name.as_str() {
        "GET" => Command::Get(one()?),
        "MGET" => Command::GetMany(some()?),
        "SET" => set(&rest).ok_or_else(wrong)?,
        "MSET" if !rest.is_empty() && rest.len().is_multiple_of(2) => {
            Command::SetMany(rest.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
        }
        "DEL" | "UNLINK" => Command::Delete(some()?),
        "EXISTS" => Command::Exists(some()?),
        "INCR" => Command::Add(one()?, 1),
        "DECR" => Command::Add(one()?, -1),
        "INCRBY" if rest.len() == 2 => Command::Add(rest[0].clone(), number(&rest[1])?),
        "DBSIZE" => Command::Size,
        "KEYS" => Command::Keys(one()?),
        "SCAN" => scan(&rest).ok_or_else(wrong)?,
        "FLUSHDB" | "FLUSHALL" => Command::Clear,
        "INFO" => Command::Info,
        "PING" if rest.is_empty() => say("PONG"),
        "PING" | "ECHO" => Command::Say(Frame::BulkString(one()?)),
        "SELECT" if rest.first().is_some_and(|number| number != b"0") => {
            return Err("ERR there is one database, 0".into());
        }
        "SELECT" | "CLIENT" | "QUIT" => say("OK"),
        // What redis-cli and redis-benchmark ask for at the start.
        "COMMAND" => Command::Say(Frame::Array(Vec::new())),
        "CONFIG" => Command::Say(Frame::Array(
            rest.get(1)
                .map_or_else(Vec::new, |key| vec![Frame::BulkString(key.clone()), Frame::BulkString(Vec::new())]),
        )),
        "HELLO" => return Err("NOPROTO this server speaks version 2 of the protocol".into()),
        "MSET" | "INCRBY" => return Err(wrong()),
        _ => return Err(format!("ERR unknown command '{}'", name.to_ascii_lowercase())),
    })
}

fn set(rest: &[Bytes]) -> Option<Command> {
    let (key, value) = (rest.first()?.clone(), rest.get(1)?.clone());
    let option = rest.get(2).map(|option| option.to_ascii_uppercase());
    let only_if = match option.as_deref() {
        None => None,
        Some(b"NX") => Some(false),
        Some(b"XX") => Some(true),
        Some(_) => return None,
    };
    Some(Command::Set { key, value, only_if })
}

fn scan(rest: &[Bytes]) -> Option<Command> {
    let after = match rest.first()?.as_slice() {
        b"0" => None,
        cursor => Some(key_of(cursor)?),
    };
    let (mut most, mut pattern) = (10, b"*".to_vec());
    for pair in rest[1..].chunks_exact(2) {
        match pair[0].to_ascii_uppercase().as_slice() {
            b"COUNT" => most = usize::try_from(number(&pair[1]).ok()?).ok()?.max(1),
            b"MATCH" => pattern.clone_from(&pair[1]),
            _ => return None,
        }
    }
    Some(Command::Scan { after, most, pattern })
}

fn number(text: &[u8]) -> Result<i64, String> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| "ERR value is not an integer or out of range".to_owned())
}

/// A cursor that says after which key to go on. Clients pass it back as it is; `x` keeps it from being 0.
pub(crate) fn cursor(key: &[u8]) -> Bytes {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x{hex}").into_bytes()
}

fn key_of(cursor: &[u8]) -> Option<Bytes> {
    let hex = std::str::from_utf8(cursor.strip_prefix(b"x")?).ok()?;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

/// Whether a key fits a pattern with `*` and `?`.
pub(crate) fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut p, mut k) = (0, 0);
    // Behind the last star, and how far into the key it reaches: only this one ever has to reach farther.
    let mut star = None;
    loop {
        match (pattern.get(p), key.get(k)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, k));
            }
            (Some(wanted), Some(is)) if *wanted == b'?' || wanted == is => (p, k) = (p + 1, k + 1),
            _ => match star {
                Some((behind, reach)) if reach < key.len() => {
                    star = Some((behind, reach + 1));
                    (p, k) = (behind, reach + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, key) in [("*", ""), ("a*", "a"), ("a*c", "abbc"), ("?b*", "ab"), ("*b*b", "abcb"), ("", "")] {
            assert!(matches(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
        }
        for (pattern, key) in [("?", ""), ("a", "ab"), ("a*c", "abb"), ("*b*b", "ab"), ("", "a")] {
            assert!(!matches(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
        }
        let (many_stars, long) = ("*a".repeat(50), "a".repeat(10_000) + "b");
        assert!(!matches(many_stars.as_bytes(), long.as_bytes()), "and in no time");
    }
}
