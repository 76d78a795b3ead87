//! Copies: `memcpy` for what is small or hot, non-temporal stores for cold bulk.

/// From this length on, [`copy`] goes around the cache: with its source it would fill half of a common last-level
/// cache, so nothing of it can be hot. Measured (`examples/measure.rs`).
pub const NON_TEMPORAL_FROM: usize = 4 << 20;

/// Copies `len` bytes. From [`NON_TEMPORAL_FROM`] on it goes around the cache, which spares reading the target first;
/// below, the plain copy leaves the bytes where their reader looks first.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`]: `from` is readable, `to` is writable, for `len` bytes, and they do not
/// overlap. Another process may change either meanwhile: then bytes are torn.
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len >= NON_TEMPORAL_FROM {
        // SAFETY: the caller's promise is the callee's condition.
        unsafe { copy_non_temporal(from, to, len) };
    } else {
        // SAFETY: the caller's promise is the callee's condition.
        unsafe { copy_plain(from, to, len) };
    }
}

/// # Safety
/// As for [`copy`].
#[inline]
pub(super) unsafe fn copy_plain(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise is the callee's condition.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}

/// Copies `len` bytes around the cache where the processor can; when it returns, the stores are ordered before every
/// later one.
///
/// # Safety
/// As for [`copy`].
pub unsafe fn copy_non_temporal(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise is the callee's condition.
    unsafe {
        x86::copy(from, to, len);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise is the callee's condition.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, len);
    }
}

/// Every store before this is seen before any store after it, also one that goes around the cache.
///
/// On x86 ordinary stores are seen in their order, and non-temporal ones are the exception in both directions: one may be
/// seen before an ordinary store that precedes it (Intel's manual, volume 3, "Memory Ordering in P6 and More Recent
/// Processor Families"; AMD's, volume 2, "Memory Access Ordering"). `sfence` orders both kinds.
#[inline]
pub(super) fn store_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86_64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm_stream_si128, _mm256_loadu_si256, _mm256_stream_si256,
    };

    use super::store_fence;

    /// A cache line: what one round of the loops moves.
    const LINE: usize = 64;

    /// # Safety
    /// As for [`super::copy`].
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        let head = to.align_offset(LINE).min(len);
        let lines = (len - head) / LINE;
        let done = head + lines * LINE;
        // SAFETY: `head` is at most `len`.
        unsafe { std::ptr::copy_nonoverlapping(from, to, head) };
        let (line_from, line_to) = (from.wrapping_add(head), to.wrapping_add(head));
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: `lines` whole lines lie inside `len`, `line_to` is aligned to a line, and AVX2 is there.
            unsafe { lines_avx2(line_from, line_to, lines) };
        } else {
            // SAFETY: as above; SSE2 is part of x86_64.
            unsafe { lines_sse2(line_from, line_to, lines) };
        }
        store_fence();
        // SAFETY: `done` is at most `len`.
        unsafe { std::ptr::copy_nonoverlapping(from.wrapping_add(done), to.wrapping_add(done), len - done) };
    }

    #[target_feature(enable = "avx2")]
    unsafe fn lines_avx2(from: *const u8, to: *mut u8, lines: usize) {
        for line in 0..lines {
            let from = from.wrapping_add(line * LINE).cast::<__m256i>();
            let to = to.wrapping_add(line * LINE).cast::<__m256i>();
            // SAFETY: the line is readable.
            let low = unsafe { _mm256_loadu_si256(from) };
            // SAFETY: the line is readable.
            let high = unsafe { _mm256_loadu_si256(from.wrapping_add(1)) };
            // SAFETY: the line is writable and aligned to 64.
            unsafe { _mm256_stream_si256(to, low) };
            // SAFETY: the line is writable and aligned to 64.
            unsafe { _mm256_stream_si256(to.wrapping_add(1), high) };
        }
    }

    unsafe fn lines_sse2(from: *const u8, to: *mut u8, lines: usize) {
        for part in 0..lines * (LINE / 16) {
            let from = from.wrapping_add(part * 16).cast::<__m128i>();
            let to = to.wrapping_add(part * 16).cast::<__m128i>();
            // SAFETY: the part of a line is readable.
            let bytes = unsafe { _mm_loadu_si128(from) };
            // SAFETY: the part of a line is writable and aligned to 16.
            unsafe { _mm_stream_si128(to, bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_copies_exactly() {
        let source: Vec<u8> = (0..1024u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in (0..300).chain([511, 512, 513]) {
            for (from, to) in [(0, 0), (1, 0), (0, 1), (7, 33), (63, 64), (64, 63)] {
                let mut target = vec![0xee; 1024];
                // SAFETY: 64 + 513 is inside both buffers, which are separate.
                unsafe { copy_non_temporal(source[from..].as_ptr(), target[to..].as_mut_ptr(), len) };
                assert_eq!(target[to..to + len], source[from..from + len]);
                assert!(target[..to].iter().chain(&target[to + len..]).all(|&byte| byte == 0xee));
            }
        }
    }
}
