//! Where a segment's replicas are to be, by the labels of nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Labels by whose values replicas are kept apart where a segment asks for nothing else, the widest first.
pub const SPREAD: [&str; 2] = ["zone", "rack"];

/// Labels that a node has by itself: its name, its machine, and, if it only keeps replicas, that.
pub const OWN_LABELS: [&str; 3] = ["node", "host", "storage"];

/// A node's labels: those that it was given, and [`OWN_LABELS`].
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'n> {
    /// Its name.
    pub name: &'n str,
    /// Its machine.
    pub host: &'n str,
    /// Whether it only keeps replicas.
    pub storage: bool,
    /// What it was given.
    pub labels: &'n BTreeMap<String, String>,
}

impl<'n> Labelled<'n> {
    /// The value of a label.
    #[must_use]
    pub fn label(self, key: &str) -> Option<&'n str> {
        match key {
            "node" => Some(self.name),
            "host" => Some(self.host),
            "storage" => self.storage.then_some("yes"),
            other => self.labels.get(other).map(String::as_str),
        }
    }
}

/// What is asked of the nodes that keep a segment's replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placing {
    /// What a node must be.
    pub require: Vec<Condition>,
    /// What it had better be: nodes of which more is true come first.
    pub prefer: Vec<Condition>,
    /// Labels of which replicas, and the owner's node, are to have different values if that can be, the widest first. Empty: [`SPREAD`].
    pub spread: Vec<String>,
}

/// Something that is true of a node, or is not: `zone=a`, `zone!=a`, `ssd` (it has such a label), `!ssd`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    key: String,
    value: Option<String>,
    is_not: bool,
}

impl Condition {
    /// Whether it is true of a node; `label` gives the value that the node has for a key.
    pub fn holds<'l>(&self, label: impl FnOnce(&str) -> Option<&'l str>) -> bool {
        let has = label(&self.key);
        let is = self.value.as_ref().map_or(has.is_some(), |value| has == Some(value));
        is != self.is_not
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value, is_not) = match (text.split_once("!="), text.split_once('=')) {
            (Some((key, value)), _) => (key, Some(value), true),
            (None, Some((key, value))) => (key, Some(value), false),
            (None, None) => (text.trim_start_matches('!'), None, text.starts_with('!')),
        };
        let is_good = is_label(key) && value.is_none_or(is_label);
        let condition = || Self { key: key.to_owned(), value: value.map(str::to_owned), is_not };
        is_good.then(condition).ok_or_else(|| {
            format!(
                "{text:?} says nothing of a node: write zone=a, zone!=a, ssd or !ssd, in letters, digits and . _ / -"
            )
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, self.is_not) {
            (Some(value), true) => write!(f, "{}!={value}", self.key),
            (Some(value), false) => write!(f, "{}={value}", self.key),
            (None, is_not) => write!(f, "{}{}", if is_not { "!" } else { "" }, self.key),
        }
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

/// Whether this may be a label's name or value: 1 to 63 letters, digits, and `. _ / -`.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-');
    (1..=63).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// A node, as it is judged for a segment's next replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// Its name.
    pub node_name: String,
    /// What comes of it.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: String,
}

/// What comes of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It keeps a replica in sync.
    Keeps,
    /// It gets one.
    Chosen,
    /// It would do, after those that are chosen.
    Fits,
    /// It gets none.
    Unfit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_written() {
        let label = |key: &str| match key {
            "zone" => Some("a"),
            "ssd" => Some("yes"),
            _ => None,
        };
        for (text, holds) in [
            ("zone=a", true),
            ("zone=b", false),
            ("zone!=a", false),
            ("zone!=b", true),
            ("rack=1", false),
            ("rack!=1", true),
            ("ssd", true),
            ("!ssd", false),
            ("rack", false),
            ("!rack", true),
        ] {
            let condition: Condition = text.parse().expect("a condition");
            assert_eq!((condition.to_string().as_str(), condition.holds(label)), (text, holds));
        }
        for wrong in ["", "=", "zone=", "=a", "a b", "zone==a", "zone=a=b", "!!x=", "zone=a,rack=b"] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong:?}");
        }
    }
}
