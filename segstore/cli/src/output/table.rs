//! Tables.

use comfy_table::{Table, presets};

/// Prints rows under a heading; of nothing, a sentence.
pub(crate) fn print(heading: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
    if rows.is_empty() {
        crate::output::line(nothing);
        return;
    }
    let heading: Vec<_> = heading.iter().map(|word| word.to_uppercase()).collect();
    print_as_named(&heading, rows);
}

/// Prints rows under a heading whose words are another tool's.
pub(crate) fn print_as_named(heading: &[impl AsRef<str>], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heading.iter().map(AsRef::as_ref));
    for row in rows {
        table.add_row(row);
    }
    crate::output::line(table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
}
