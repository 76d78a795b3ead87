//! A state that follows from its number alone, so that whoever finds it can tell whether it is whole.
//!
//! Step `n` writes some blocks, chosen by `n`, and its number into the first. What the steps 1 to `n` leave is the state `n`; any
//! mixture of two states, or a change that was lost, differs from every one of them.

use std::ops::Range;

/// Bytes that a step writes at a time.
pub const BLOCK: usize = 4096;

/// The blocks that step `number` writes, of a state of `blocks`: the first, and up to a quarter of the others.
pub fn touched(number: u64, blocks: usize) -> impl Iterator<Item = usize> {
    let others = blocks as u64 - 1;
    let count = mix(number) % (others / 4);
    let choose = move |i| 1 + usize::try_from(mix(number ^ (i << 40)) % others).unwrap_or(0);
    std::iter::once(0).chain((1..=count).map(choose))
}

/// Where a block lies.
pub fn place(block: usize) -> Range<usize> {
    block * BLOCK..(block + 1) * BLOCK
}

/// What step `number` writes into `block`.
pub fn fill(number: u64, block: usize, bytes: &mut [u8]) {
    for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = if i == 0 { number } else { mix(number ^ ((block as u64) << 32) ^ i as u64) };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// The number of the state, of whole blocks, at least eight of them.
///
/// # Errors
///
/// What is wrong, if it is none.
pub fn check(state: &[u8]) -> Result<u64, String> {
    let number = word(state);
    let blocks = state.len() / BLOCK;
    let mut last = vec![0; blocks];
    for step in 1..=number {
        for block in touched(step, blocks) {
            last[block] = step;
        }
    }
    let mut expected = [0; BLOCK];
    for (block, &step) in last.iter().enumerate() {
        if step > 0 {
            fill(step, block, &mut expected);
        } else {
            expected.fill(0);
        }
        let found = &state[place(block)];
        if found != expected {
            return Err(format!(
                "state {number}: block {block} should be of step {step}, and begins as of {}",
                word(found)
            ));
        }
    }
    Ok(number)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The finaliser of SplitMix64: every bit of the value decides about every bit of the result.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 64;

    fn state(number: u64) -> Vec<u8> {
        let mut state = vec![0; BLOCKS * BLOCK];
        for step in 1..=number {
            write(step, &mut state);
        }
        state
    }

    fn write(step: u64, state: &mut [u8]) {
        for block in touched(step, BLOCKS) {
            fill(step, block, &mut state[place(block)]);
        }
    }

    #[test]
    fn every_state_has_its_number() {
        for number in 0..20 {
            assert_eq!(check(&state(number)), Ok(number));
        }
    }

    #[test]
    fn a_block_of_another_state_is_found() {
        let (old, new) = (state(7), state(8));
        for block in touched(8, BLOCKS) {
            let mut torn = new.clone();
            torn[place(block)].copy_from_slice(&old[place(block)]);
            assert!(check(&torn).is_err(), "block {block}");
        }
    }

    #[test]
    fn a_bit_that_changed_is_found() {
        let mut state = state(5);
        state[17 * BLOCK + 99] ^= 4;
        assert!(check(&state).is_err_and(|text| text.contains("block 17")));
    }
}
