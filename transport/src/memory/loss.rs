//! Mapped memory that is gone: a file was cut short under its mapping, or its file system is full. Touching it raises
//! SIGBUS, which would kill the process. Here a handler puts zeros there and marks the mapping, so that whoever touched it
//! goes on, finds the mark, and gets an error.
//!
//! The handler is the process's own, installed with the first mapping. A fault elsewhere goes to the handler that was
//! installed before; one that is installed later must do the same for this one.
//!
//! The mark is set before the zeros are mapped: who saw zeros, in any thread, finds the mark afterwards.

use std::ffi::{c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use crate::sync::Ordering;
use crate::sync::shared::{AtomicBool, AtomicPtr, AtomicUsize, compiler_fence};
use crate::{Error, ErrorKind, Result};

/// Some memory of this process was lost.
static LOST: AtomicBool = AtomicBool::new(false);
/// All entries there ever were: the handler walks them, and none is freed.
static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(std::ptr::null_mut());
/// Entries of mappings that are gone, for the next.
static FREE: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());
/// Who was asked about SIGBUS before.
static PREVIOUS: OnceLock<Option<SigAction>> = OnceLock::new();

const WHOLE: usize = usize::MAX;

/// One mapping. While `start` is not 0, the range is mapped and nothing else stands there.
struct Entry {
    start: AtomicUsize,
    end: AtomicUsize,
    writable: AtomicBool,
    /// The first address that is gone.
    lost: AtomicUsize,
    next: AtomicPtr<Entry>,
}

/// Keeps a mapping from killing the process. To be dropped before it is unmapped.
pub(super) struct Watch {
    entry: &'static Entry,
}

impl Watch {
    /// Of a range that is mapped: whole pages from `start` on, `len` bytes and the rest of the last page.
    pub(super) fn new(start: *mut u8, len: usize, writable: bool) -> Watch {
        PREVIOUS.get_or_init(install);
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let entry = free.unwrap_or_else(Entry::add);
        entry.end.store(start.addr() + len.next_multiple_of(page()), Ordering::Release);
        entry.writable.store(writable, Ordering::Release);
        entry.lost.store(WHOLE, Ordering::Release);
        entry.start.store(start.addr(), Ordering::Release);
        Watch { entry }
    }

    /// Whether all of it is still there, as far as anybody touched it.
    pub(super) fn check(&self, len: usize) -> Result<()> {
        if any() { self.entry.check(len) } else { Ok(()) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.entry.start.store(0, Ordering::Release);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.entry);
    }
}

/// Whether any memory of this process was lost: what was touched before counts. All that the data path pays.
#[inline]
pub(crate) fn any() -> bool {
    // The handler runs in the thread that touched the memory: only the compiler could put the load first.
    compiler_fence(Ordering::SeqCst);
    LOST.load(Ordering::Relaxed)
}

/// Whether the mapping around an address is whole.
pub(crate) fn check_at(address: *mut u8, len: usize) -> Result<()> {
    find(address.addr()).map_or(Ok(()), |(entry, ..)| entry.check(len))
}

impl Entry {
    fn add() -> &'static Entry {
        let entry = Box::leak(Box::new(Entry {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            lost: AtomicUsize::new(WHOLE),
            next: AtomicPtr::new(std::ptr::null_mut()),
        }));
        let mut first = ENTRIES.load(Ordering::Acquire);
        loop {
            entry.next.store(first, Ordering::Relaxed);
            match ENTRIES.compare_exchange_weak(first, entry, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return entry,
                Err(other) => first = other,
            }
        }
    }

    fn check(&self, len: usize) -> Result<()> {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost == WHOLE {
            return Ok(());
        }
        let from = lost - self.start.load(Ordering::Relaxed);
        let text = format!(
            "memory of {len} bytes is gone from byte {from} on: somebody cut its file short, or the file system is full; \
             what it held is lost, map a new file"
        );
        Err(Error::operation(ErrorKind::Lost, text))
    }

    /// Puts zeros from the address's page on: what is behind a cut is gone too, and one mapping is enough for all of it.
    fn cut(&self, start: usize, end: usize, address: usize) -> bool {
        let from = address & !(page() - 1);
        self.lost.fetch_min(from.max(start), Ordering::SeqCst);
        LOST.store(true, Ordering::SeqCst);
        let protection = match self.writable.load(Ordering::Acquire) {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let (at, len) = (std::ptr::without_provenance_mut::<c_void>(from), end - from);
        // SAFETY: the range is the rest of one mapping that lives, since a thread has just touched it; nothing but that
        // mapping stands there, into which only pointers and atomics point. A bare system call, so a handler may make it.
        let mapped = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
        mapped != libc::MAP_FAILED
    }
}

/// The mapping around an address that somebody uses, so that it does not go away meanwhile; and where it starts and ends.
fn find(address: usize) -> Option<(&'static Entry, usize, usize)> {
    let mut next = ENTRIES.load(Ordering::Acquire);
    // SAFETY: entries are leaked, so each pointer in the list is null or valid for ever.
    while let Some(entry) = unsafe { next.as_ref() } {
        let start = entry.start.load(Ordering::Acquire);
        let end = entry.end.load(Ordering::Acquire);
        // Both ends are of one mapping if the start is the same before and after.
        if start != 0 && (start..end).contains(&address) && entry.start.load(Ordering::Acquire) == start {
            return Some((entry, start, end));
        }
        next = entry.next.load(Ordering::Acquire);
    }
    None
}

/// Gives the handler that was there.
fn install() -> Option<SigAction> {
    page(); // Asked for before the handler needs it.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let ours = SigAction::new(SigHandler::SigAction(on_sigbus), flags, SigSet::empty());
    // SAFETY: the handler only loads and stores atomics, maps memory, and calls what was installed before it.
    unsafe { sigaction(Signal::SIGBUS, &ours) }.ok()
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the system passes a valid pointer to a handler that asks for it, and the fields are plain data.
    let about = unsafe { &*info };
    // SAFETY: the union's field is the address for every fault of the processor; otherwise it is not used.
    let address = unsafe { about.si_addr() }.addr();
    // Codes above 0 are the processor's; others were sent, and have no address.
    let fault = about.si_code > 0;
    let handled = fault && find(address).is_some_and(|(entry, start, end)| entry.cut(start, end, address));
    if !handled {
        pass_on(fault, signal, info, context);
    }
    Errno::set_raw(errno);
}

/// To whom it would have come without this handler.
fn pass_on(fault: bool, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    match PREVIOUS.get().copied().flatten().map(|previous| previous.handler()) {
        Some(SigHandler::SigAction(handler)) => handler(signal, info, context),
        Some(SigHandler::Handler(handler)) => handler(signal),
        Some(SigHandler::SigIgn) if !fault => {}
        _ => {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: no handler of this process is installed by it.
            let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
            // A fault comes again by itself when this returns.
            if !fault {
                let _ = raise(Signal::SIGBUS);
            }
        }
    }
}

/// The page size in bytes.
pub(super) fn page() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Ordering::Relaxed) {
        0 => {
            let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
            let size = size.ok().flatten().and_then(|size| size.try_into().ok()).unwrap_or(4096);
            PAGE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}
