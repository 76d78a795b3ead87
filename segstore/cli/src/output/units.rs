//! Sizes and times, read and written as people do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes from a number with a unit, such as 4096, 64K, 1GiB.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?}: write it as 4096, 64K or 1GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match text[digits..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// So many of something, whose name takes an s.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A name that fits a table: of a long one, its ends.
pub(crate) fn short(name: &str) -> String {
    if name.len() <= 48 {
        return name.to_owned();
    }
    let (start, end): (String, Vec<char>) = (name.chars().take(28).collect(), name.chars().rev().take(16).collect());
    format!("{start}...{}", end.iter().rev().collect::<String>())
}

/// How long ago a time was, in milliseconds since 1970.
pub(crate) fn ago(millis: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(Duration::from_millis(millis));
    let seconds = Duration::from_secs(since.as_secs());
    format!("{} ago", humantime::format_duration(seconds))
}

/// A time, in milliseconds since 1970, for people and for sorting.
pub(crate) fn moment(millis: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shown_by_its_ends() {
        assert_eq!(short("orders/eu"), "orders/eu");
        let long = format!("a{}z", "x".repeat(253));
        assert_eq!(short(&long).len(), 47);
        assert!(short(&long).starts_with("ax") && short(&long).ends_with("xz"));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64K"), Ok(64 << 10));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        for wrong in ["", "K", "4x", "-1", "99999999999999999999", "99999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
