//! How many connections a user has: one user's mistake must not take the daemon from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segstore::control::message::{Fault, FaultKind};

/// The most connections of one user.
const CONNECTIONS: usize = 512;

/// The connections of every user.
#[derive(Default)]
pub(super) struct Seats(Mutex<HashMap<u32, usize>>);

/// One connection.
pub(super) struct Seat {
    seats: Arc<Seats>,
    user: u32,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, until it is dropped.
    pub(super) fn take(self: &Arc<Self>, user: u32) -> Result<Seat, Fault> {
        let mut taken = self.lock();
        let count = taken.entry(user).or_default();
        if *count >= CONNECTIONS {
            let text = format!("user {user} has {count} connections to this daemon, the most that one user may have");
            return Err(Fault::new(FaultKind::NoRoom, text));
        }
        *count += 1;
        Ok(Seat { seats: self.clone(), user })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_does_not_take_all() {
        let seats = Arc::<Seats>::default();
        let taken: Vec<_> = (0..CONNECTIONS).map(|_| seats.take(1).expect("a seat")).collect();
        let refused = seats.take(1).err().expect("no seat is left");
        assert!(refused.message.contains("user 1 has 512 connections"), "{refused:?}");
        assert!(seats.take(2).is_ok());
        drop(taken);
        assert!(seats.take(1).is_ok());
    }
}
