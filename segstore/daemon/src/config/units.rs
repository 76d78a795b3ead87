//! Sizes and times as people write them.

use std::time::Duration;

/// Bytes: a number with a unit (KiB, MiB, GiB, TiB), or a part of the machine's memory (50%).
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?}: write it as 8GiB, or as a part of the machine's memory, 50%");
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.trim().parse().map_err(|_| wrong())?;
        if percent > 100 {
            return Err(format!("{text:?}: more than the machine has"));
        }
        return Ok(machine()? / 100 * percent);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Bytes of memory that the machine has.
fn machine() -> Result<u64, String> {
    let about = nix::sys::sysinfo::sysinfo().map_err(|error| format!("how much memory there is: {error}"))?;
    Ok(about.ram_total())
}

/// Bytes for people.
pub(crate) fn shown(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A time such as 3s or 500ms.
pub(super) fn duration(text: &str, shortest: Duration) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| format!("{text:?}: write it as 3s or 500ms"))?;
    if time < shortest {
        return Err(format!("{text:?}: at least {}", humantime::format_duration(shortest)));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!((shown(1000), shown(3 << 19)), ("1000 B".into(), "1.50 MiB".into()));
        assert!(size("50%").is_ok_and(|bytes| bytes > 0));
        for wrong in ["", "GiB", "8 bananas", "200%", "99999999999TiB", "-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
