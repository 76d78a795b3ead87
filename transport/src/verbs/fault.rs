//! Why a connection ended, from what the device says of a request, or what the target said last.

use std::ffi::CStr;

use ibverbs_sys::ibv_wc_status::{self as status, Type as Status};
use ibverbs_sys::ibv_wc_status_str;

use super::events::Health;
use super::wire::{Message, kind};
use crate::{Error, ErrorKind};

/// What a target says last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// This peer was revoked.
    Revoked,
    /// A region stands on other memory now.
    Moved,
}

impl Goodbye {
    pub(super) fn to_message(self) -> Message {
        let reason = match self {
            Goodbye::Revoked => 1,
            Goodbye::Moved => 2,
        };
        Message::new(kind::GOODBYE, reason)
    }

    /// `None` for a reason that this version does not know.
    fn from_value(value: u64) -> Option<Goodbye> {
        match value {
            1 => Some(Goodbye::Revoked),
            2 => Some(Goodbye::Moved),
            _ => None,
        }
    }

    pub(super) fn error(self) -> Error {
        match self {
            Goodbye::Revoked => Error::endpoint(ErrorKind::Revoked, "the target has revoked this endpoint"),
            Goodbye::Moved => {
                Error::endpoint(ErrorKind::Moved, "the target's region stands on other memory now: connect again")
            }
        }
    }
}

/// What a message of the target means for its endpoint.
pub(super) fn heard(message: &Message) -> Error {
    let value = message.value.get();
    match (message.kind, Goodbye::from_value(value)) {
        (kind::GOODBYE, Some(goodbye)) => goodbye.error(),
        (kind::GOODBYE, None) => {
            let text = format!("the target ended the connection for reason {value}, which is not known here");
            Error::endpoint(ErrorKind::PeerGone, text)
        }
        (kind, _) => Error::endpoint(ErrorKind::Protocol, format!("the target sent a message of kind {kind}")),
    }
}

/// What the end of an initiator's request means for its endpoint.
pub(super) fn of_request(ended: Status, health: &Health) -> Error {
    if let Err(error) = health.check_port() {
        return error.with_code(ended.into());
    }
    let (kind, text) = match ended {
        status::IBV_WC_RETRY_EXC_ERR | status::IBV_WC_RESP_TIMEOUT_ERR => {
            (ErrorKind::PeerGone, "the target does not answer: it, or the way to it, is gone")
        }
        // What this side asks for is checked before, so it was granted once.
        status::IBV_WC_REM_ACCESS_ERR => (ErrorKind::Revoked, "the target has taken this endpoint's access away"),
        status::IBV_WC_REM_INV_REQ_ERR | status::IBV_WC_REM_INV_RD_REQ_ERR | status::IBV_WC_BAD_RESP_ERR => {
            (ErrorKind::Protocol, "the target refuses what it granted: it is broken")
        }
        status::IBV_WC_RNR_RETRY_EXC_ERR => {
            (ErrorKind::Protocol, "the target has no room for a message for which it said there was")
        }
        status::IBV_WC_LOC_PROT_ERR | status::IBV_WC_LOC_ACCESS_ERR => (
            ErrorKind::System,
            "the device cannot use local memory of the batch: it could not be registered again after it moved",
        ),
        status::IBV_WC_WR_FLUSH_ERR => (ErrorKind::PeerGone, "the device gave the connection up"),
        _ => (ErrorKind::System, "the device could not do a request"),
    };
    Error::endpoint(kind, format!("{text} ({})", said(ended))).with_code(ended.into())
}

/// What an end that the target did not ask for means for its peer.
pub(super) fn of_peer(ended: Status, health: &Health) -> Error {
    if let Err(error) = health.check_port() {
        return error.with_code(ended.into());
    }
    let (kind, text) = match ended {
        status::IBV_WC_RETRY_EXC_ERR => {
            (ErrorKind::PeerGone, "the peer does not answer: it, or the way to it, is gone")
        }
        status::IBV_WC_LOC_LEN_ERR => (ErrorKind::Protocol, "the peer sent a message that is longer than any"),
        status::IBV_WC_RNR_RETRY_EXC_ERR => (ErrorKind::Protocol, "the peer has no room for the last message"),
        status::IBV_WC_WR_FLUSH_ERR | status::IBV_WC_REM_ACCESS_ERR | status::IBV_WC_REM_INV_REQ_ERR => {
            (ErrorKind::Denied, "the device ended the connection: the peer asked for what it was not granted")
        }
        _ => (ErrorKind::System, "the device could not do a request"),
    };
    Error::endpoint(kind, format!("{text} ({})", said(ended))).with_code(ended.into())
}

/// The device's own words.
fn said(ended: Status) -> String {
    // SAFETY: it takes any number.
    let words = unsafe { ibv_wc_status_str(ended) };
    // SAFETY: it answers with a string that ends with a zero and always lives.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goodbye_is_understood_and_a_new_reason_carried() {
        for goodbye in [Goodbye::Revoked, Goodbye::Moved] {
            assert_eq!(heard(&goodbye.to_message()), goodbye.error());
        }
        assert_eq!(heard(&Message::new(kind::GOODBYE, 3)).kind(), ErrorKind::PeerGone);
        assert_eq!(heard(&Message::new(kind::NOTIFY, 1)).kind(), ErrorKind::Protocol);
    }

    #[test]
    fn every_status_is_an_error_with_its_code() {
        for ended in 1..40 {
            let health = Health::new("rxe0", 1);
            assert_eq!(of_request(ended, &health).code(), i64::from(ended));
            assert_eq!(of_peer(ended, &health).code(), i64::from(ended));
        }
    }
}
