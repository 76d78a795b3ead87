//! The protocol's rules by name.
//!
//! A proof that cannot fail proves nothing. With the feature `sabotage` a test can switch one rule off and must then see a
//! promise broken; without the feature every question below is the constant `true` and leaves no trace in the code.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One rule of the protocol that can be left out of a test build.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name that selects the rule on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

rules! {
    /// A takeover replaces the in-sync set by the fenced members that hold the loaded image, before it returns.
    Seal = "seal",
    /// A takeover that has nothing to seal makes sure that it was not overtaken, before it returns.
    ConfirmClaim = "confirm-claim",
    /// Where a caretaker has claimed the segment in between, it is claimed anew.
    CaretakerIsNoRival = "caretaker-is-no-rival",
    /// A takeover reads only from members that it fenced.
    ReadOnlyFenced = "read-only-fenced",
    /// A push marks the slot open before it writes anything else.
    OpenMark = "open-mark",
    /// A push writes a block's table entry before the block.
    EntriesBeforeBlocks = "entries-before-blocks",
    /// A push writes header and closing mark after everything else.
    HeaderLast = "header-last",
    /// A slot that is open or off the owner's lineage is filled in full.
    FillTouchedSlots = "fill-touched-slots",
    /// Lineage, not the epoch alone, decides whether a slot can be filled by difference.
    LineageDecides = "lineage-decides",
    /// A push that goes on where an earlier one was ended sends again what has changed since.
    GoOnWithChanges = "go-on-with-changes",
    /// Every attempt takes a number of its own.
    NoNumberTwice = "no-number-twice",
    /// A push never goes into the slot that holds the newest acknowledged image.
    SpareTheNewest = "spare-the-newest",
    /// From before an add is sent until its outcome is known, checkpoints wait for the new member.
    WaitWhileAdding = "wait-while-adding",
    /// A checkpoint is acknowledged without a member only after the member's removal is confirmed.
    ConfirmRemoval = "confirm-removal",
    /// The last member is never removed.
    KeepTheLast = "keep-the-last",
    /// A member that fails a checkpoint is removed only when one who stays has taken it.
    TakenByWhoStays = "taken-by-who-stays",
    /// A compare-and-swap compares the whole record's version, not only the term.
    WholeRecord = "whole-record",
    /// A replica refuses terms below the highest that it has seen.
    RefuseLowerTerms = "refuse-lower-terms",
    /// A replica stores the highest term in its memory before it acts on it.
    RememberTerm = "remember-term",
    /// Opening a write endpoint, even in the same term, first revokes the earlier ones.
    RevokeEarlier = "revoke-earlier",
    /// A reader believes a slot only if it is closed and its checksums match.
    VerifySlots = "verify-slots",
    /// What was copied while its slot was written is neither the image nor damage.
    StandStill = "stand-still",
    /// A reader that is no owner takes only the image that the segment's owner holds for it.
    ReadTheHeld = "read-the-held",
    /// Where no owner is asked, only what every member of the in-sync set has as its newest image counts as acknowledged.
    ReadWhatAllHave = "read-what-all-have",
    /// A reader that is no owner begins again if the record changed while it read.
    AskAgain = "ask-again",
    /// A repair starts only after its owner's takeover has returned.
    RepairAfterTakeover = "repair-after-takeover",
    /// A repair takes a block's table entry before the block.
    RepairEntryFirst = "repair-entry-first",
    /// A repair fills every slot of the target.
    RepairAllSlots = "repair-all-slots",
    /// A replica that was repaired is pushed every block modified since the copy began.
    PushSinceRepair = "push-since-repair",
    /// Nothing reads working memory after the call has returned.
    MemoryRests = "memory-rests",
    /// A slot that something reads is not written.
    RespectPins = "respect-pins",
    /// An older image is chosen only if it is proven that the newer one was not acknowledged.
    ProveOlder = "prove-older",
    /// What belongs to another segment's life is refused.
    Identity = "identity",
    /// A record whose term is below what a replica remembers is refused.
    DirectoryWentBack = "directory-went-back",
    /// Below the minimum nothing is acknowledged, where the policy says so.
    Minimum = "minimum",
    /// A replica on the owner's own node does not count towards the minimum.
    OwnNode = "own-node",
    /// A healthy replica is let go only when all who stay have shown that they hold what is acknowledged.
    ProveWhoStays = "prove-who-stays",
    /// A healthy replica that is let go takes part until its removal is confirmed, and all who stay have shown themselves once more.
    PartAfterRemoval = "part-after-removal",
    /// Who is about to be let go counts again when somebody who was to stay is lost.
    CountAgain = "count-again",
    /// A replica is forgotten only if the request names it.
    NameTheForgotten = "name-the-forgotten",
    /// A replica is forgotten only in the name of an owner that is not older than the highest it remembers.
    ForgetByTheLatest = "forget-by-the-latest",
    /// A replica is not forgotten while the record lists it.
    KeepTheListed = "keep-the-listed",
    /// What changes a replica in an owner's name ends in the step in which the next owner is admitted.
    EndTurns = "end-turns",
}

#[cfg(feature = "sabotage")]
static LEFT_OUT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Leaves `rule` out for the rest of this process.
#[cfg(feature = "sabotage")]
pub fn leave_out(rule: Rule) {
    LEFT_OUT.fetch_or(1 << rule as u8, std::sync::atomic::Ordering::Relaxed);
}

/// Leaves out the rules that `SEGSTORE_LEAVE_OUT` names, with commas between them, for the rest of this process.
///
/// # Panics
/// There is no rule of such a name: what should be broken would be whole.
#[cfg(feature = "sabotage")]
pub fn leave_out_what_the_environment_says() {
    let names = std::env::var("SEGSTORE_LEAVE_OUT").unwrap_or_default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let rule = Rule::ALL.iter().find(|rule| rule.name() == name);
        leave_out(*rule.unwrap_or_else(|| panic!("SEGSTORE_LEAVE_OUT={names}: no rule is called {name}")));
    }
}

/// Whether `rule` is in force.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn holds(rule: Rule) -> bool {
    LEFT_OUT.load(std::sync::atomic::Ordering::Relaxed) & (1 << rule as u8) == 0
}

/// Whether `rule` is in force: always.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn holds(_rule: Rule) -> bool {
    true
}
