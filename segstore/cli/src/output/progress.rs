//! Progress bars, on a terminal only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over so many bytes.
pub(crate) fn bytes(what: &str, total: u64) -> ProgressBar {
    // On anything but a terminal nothing is drawn.
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = "{msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}

/// A bar without an end over bytes that `so_far` tells, while `work` is done.
pub(crate) fn watching<T>(what: &str, so_far: impl Fn() -> u64 + Sync, work: impl FnOnce() -> T) -> T {
    let bar = spinner(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {bytes}, {bytes_per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    let is_done = AtomicBool::new(false);
    let (first, look) = (so_far(), Duration::from_millis(50));
    std::thread::scope(|scope| {
        // On anything but a terminal there is nothing to update.
        if !bar.is_hidden() {
            scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    bar.set_position(so_far() - first);
                    std::thread::sleep(look);
                }
            });
        }
        let done = work();
        is_done.store(true, Ordering::Release);
        bar.finish_and_clear();
        done
    })
}

/// A sign of life while something takes as long as it takes.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar over so many steps, each with a message.
pub(crate) fn steps(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}, {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
