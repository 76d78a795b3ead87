//! Being asked to hand a segment over to another node.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};
use crate::lock::lock;

/// A wish that a segment be handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// The name of the node on which somebody stands by for it.
    pub to: String,
    /// Until then it is wished for: after that, whoever stands by anywhere gets what is let go.
    pub until: Instant,
}

/// Hears of it when a segment is to be handed over: by `segctl move`, for one. While there is none of these, the owner cannot be asked.
///
/// It says nothing of when the segment is let go, nor whether: that is the application's matter. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Moves(Arc<Heard>);

#[derive(Debug)]
struct Heard {
    wish: Mutex<Option<Move>>,
    /// Rung while there is one.
    bell: EventFd,
}

impl Heard {
    /// The bell goes with the wish.
    fn tell(&self, new: &Move) {
        let mut wish = lock(&self.wish);
        *wish = Some(new.clone());
        let _ = self.bell.write(1);
    }

    /// Unless it is another one by now.
    fn forget(&self, old: Option<&Move>) {
        let mut wish = lock(&self.wish);
        if wish.as_ref() == old {
            *wish = None;
            let _ = self.bell.read();
        }
    }
}

impl Moves {
    /// What is wished for now.
    #[must_use]
    pub fn wanted(&self) -> Option<Move> {
        let wish = lock(&self.0.wish).clone();
        if wish.as_ref().is_some_and(|wish| wish.until <= Instant::now()) {
            self.0.forget(wish.as_ref());
            return None;
        }
        wish
    }

    /// Waits until something is, at most for `limit` (`None`: for ever).
    #[must_use]
    pub fn wait(&self, limit: Option<Duration>) -> Option<Move> {
        let until = limit.map(|limit| crate::time::after(Instant::now(), limit));
        loop {
            let wish = self.wanted();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if wish.is_some() || left.is_some_and(|left| left.is_zero()) {
                return wish;
            }
            // Rounded up: a wait that is cut short is one more look.
            let left =
                left.map(|left| PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
            let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], left.unwrap_or(PollTimeout::NONE));
        }
    }
}

/// Readable while something is wished for, for `poll`, `select` or an event loop. It is not to be read from.
impl AsFd for Moves {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}

/// Where wishes of one segment, or of one name, go: to whoever listens.
#[derive(Default)]
pub(crate) struct Listener(Mutex<Weak<Heard>>);

impl Listener {
    pub(crate) fn listen(&self) -> Result<Moves> {
        let mut listening = lock(&self.0);
        if let Some(heard) = listening.upgrade() {
            return Ok(Moves(heard));
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_flags(flags).map_err(|error| Error::NoRoom(format!("making an eventfd: {error}")))?;
        let heard = Arc::new(Heard { wish: Mutex::default(), bell });
        *listening = Arc::downgrade(&heard);
        Ok(Moves(heard))
    }

    /// Whether somebody hears of it.
    pub(crate) fn tell(&self, wish: &Move) -> bool {
        let heard = lock(&self.0).upgrade();
        heard.inspect(|heard| heard.tell(wish)).is_some()
    }

    /// Nothing is wished for any more.
    pub(crate) fn forget(&self) {
        if let Some(heard) = lock(&self.0).upgrade() {
            let wish = lock(&heard.wish).clone();
            heard.forget(wish.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(left: Duration) -> Move {
        Move { to: "b".into(), until: Instant::now() + left }
    }

    fn is_readable(moves: &Moves) -> bool {
        poll(&mut [PollFd::new(moves.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).expect("a poll") == 1
    }

    #[test]
    fn whoever_listens_is_told_and_nobody_else() {
        let listener = Listener::default();
        let asked = wish(Duration::from_secs(100));
        assert!(!listener.tell(&asked), "nobody listens");
        let (moves, other) = (listener.listen().expect("an ear"), listener.listen().expect("the same"));
        assert_eq!(moves.wanted(), None, "what was wished for before is nobody's");
        assert!(!is_readable(&moves));
        assert!(listener.tell(&asked));
        assert_eq!((moves.wanted(), other.wait(None)), (Some(asked.clone()), Some(asked.clone())));
        assert!(is_readable(&moves), "it is so until it is over");
        drop((moves, other));
        assert!(!listener.tell(&asked), "nobody listens any more");
    }

    #[test]
    fn a_wish_ends_with_its_time() {
        let listener = Listener::default();
        let moves = listener.listen().expect("an ear");
        assert!(listener.tell(&wish(Duration::ZERO)));
        assert_eq!(moves.wanted(), None);
        assert!(!is_readable(&moves));
        assert_eq!(moves.wait(Some(Duration::from_millis(10))), None);
    }

    #[test]
    fn who_waits_is_woken() {
        let listener = Arc::new(Listener::default());
        let (moves, teller) = (listener.listen().expect("an ear"), listener.clone());
        let asked = wish(Duration::from_secs(100));
        let told = asked.clone();
        let telling = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            teller.tell(&told)
        });
        assert_eq!(moves.wait(None), Some(asked));
        assert!(telling.join().expect("it tells"));
    }
}
