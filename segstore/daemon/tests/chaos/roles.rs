//! What the run's own processes do, each connected to its node's daemon.

use std::time::Duration;

use segstore::{Error, LoadOptions, OpenOptions, Segment, Session};

use crate::random::Random;
use crate::report::{Failing, Moment, News, Seen, failed, now, say};
use crate::segments::{SEGMENTS, Spec};
use crate::state::{Next, Writer, check};

/// The variable that names what a process is.
pub(crate) const ROLE: &str = "CHAOS_ROLE";
/// How long a checkpoint may take: some are to be given up.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Of so many checkpoints one is followed by a pause, of so many milliseconds at most.
const PAUSES: u64 = 4;
const PAUSE_MILLIS: u64 = 16;
/// How long a visitor stays away, in milliseconds, and how many changes he makes at most then.
const REST_MILLIS: std::ops::Range<u64> = 5_000..20_000;
const VISIT: u64 = 20;
/// How long whoever comes last waits for anything.
const AT_LAST: Duration = Duration::from_secs(60);

/// Runs in the role `role`, for the segment `segment`.
pub(crate) fn run(role: &str, segment: &str) {
    #[cfg(feature = "sabotage")]
    segstore_core::rule::leave_out_what_the_environment_says();
    let mut random = Random::new(now() ^ u64::from(std::process::id()));
    match role {
        "owner" => {
            let session = connected();
            loop {
                let how = OpenOptions::new().stand_by(None).follow(random.below(2) == 0);
                own(&session, Spec::named(segment), how, &mut random);
            }
        }
        "visitor" => {
            let session = connected();
            loop {
                std::thread::sleep(random.millis(REST_MILLIS));
                own(&session, Spec::named(segment), OpenOptions::new().stand_by(Some(TIMEOUT)), &mut random);
            }
        }
        "usurper" => own(&connected(), Spec::named(segment), OpenOptions::new().take_over(true), &mut random),
        "reader" => read(&mut random),
        "last" => end(Spec::named(segment)),
        other => panic!("no role {other}"),
    }
}

fn connected() -> Session {
    loop {
        match Session::connect() {
            Ok(session) => return session,
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

// ---- owners ----

/// Owns the segment once, and changes it.
fn own(session: &Session, spec: &'static Spec, how: OpenOptions, random: &mut Random) {
    let began = now();
    match session.open(spec.name, &how.timeout(TIMEOUT)) {
        Ok(mut segment) => {
            let Some(mut next) = take(spec, &segment, began) else { std::process::exit(0) };
            let changes = if spec.rests { 1 + random.below(VISIT) } else { 100 + random.below(4000) };
            if let Some(is_asked) = change(&mut segment, &mut next, changes, random) {
                let term = segment.term().0;
                if segment.release().is_ok() {
                    say(spec.name, News::Released { term, is_asked });
                }
            }
        }
        Err(error) => {
            say(spec.name, failed(&error));
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Checks what was loaded, and tells of it.
fn take(spec: &'static Spec, segment: &Segment, began: Moment) -> Option<Next<'static>> {
    let writer = Writer { id: random_id(), term: segment.term().0 };
    let seen = seen(spec, segment.bytes(), segment.epoch().0, began)?;
    say(spec.name, News::Took(seen, writer));
    Some(Next::after(spec.name, spec.capacity, writer, segment.bytes()))
}

/// What a loaded state says; `None`, and told, if it is torn.
fn seen(spec: &Spec, bytes: &[u8], epoch: u64, began: Moment) -> Option<Seen> {
    let at = now();
    match check(spec.name, spec.capacity, bytes) {
        Ok(history) => Some(Seen { history, epoch, began, at }),
        Err(why) => {
            say(spec.name, News::Torn(format!("epoch {epoch}: {why}")));
            None
        }
    }
}

fn random_id() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    u128::from_ne_bytes(bytes)
}

/// Makes so many changes, each a checkpoint, or until the ownership is over, or is to be given up: whether somebody has asked for that.
fn change(segment: &mut Segment, next: &mut Next<'_>, changes: u64, random: &mut Random) -> Option<bool> {
    let moves = segment.moves().unwrap();
    for _ in 0..changes {
        let is_asked = moves.wanted().is_some();
        // Whoever is asked has a last word.
        if !checkpoint(segment, next) {
            return None;
        }
        if is_asked {
            return Some(true);
        }
        if random.below(PAUSES) == 0 {
            std::thread::sleep(random.millis(0..PAUSE_MILLIS));
        }
    }
    Some(false)
}

/// Makes one change; whether the ownership goes on.
fn checkpoint(segment: &mut Segment, next: &mut Next<'_>) -> bool {
    let name = segment.name().to_owned();
    let (n, term) = (next.number(), segment.term().0);
    let length = next.length(segment.len());
    segment.set_len(length).unwrap();
    next.make(length, |at, bytes| segment.write(at, bytes)).unwrap();
    let began = now();
    let news = match segment.checkpoint() {
        Ok(done) => News::Acknowledged { n, epoch: done.epoch.0, term, began, at: now() },
        Err(Error::Pending { .. }) => News::Pending { n },
        Err(Error::Fenced { .. }) => News::Fenced { term },
        Err(error) => failed(&error),
    };
    let goes_on = matches!(news, News::Acknowledged { .. } | News::Pending { .. });
    say(&name, news);
    goes_on
}

// ---- readers ----

/// Loads segments without owning them.
fn read(random: &mut Random) {
    let session = connected();
    loop {
        let spec = &SEGMENTS[random.index(SEGMENTS.len())];
        let pending = random.below(8) == 0;
        load(&session, spec, &LoadOptions::new().pending(pending));
        std::thread::sleep(random.millis(50..400));
    }
}

/// Loads it, and tells of it; whether that was possible.
fn load(session: &Session, spec: &Spec, how: &LoadOptions) -> bool {
    let began = now();
    match session.load(spec.name, how) {
        Ok(image) => {
            if let Some(seen) = seen(spec, image.bytes(), image.epoch().0, began) {
                say(spec.name, News::Read { seen, is_acknowledged: image.is_acknowledged() });
            }
            true
        }
        Err(error) => {
            say(spec.name, failed(&error));
            false
        }
    }
}

// ---- the end ----

/// Opens a segment anew when everything is well again, until it is kept as it should be, and leaves it.
fn end(spec: &'static Spec) {
    if let Err(why) = open_anew(spec) {
        say(
            spec.name,
            News::Failed { what: Failing::Never, why: format!("nothing is in the way any more, and: {why}") },
        );
    }
}

fn open_anew(spec: &'static Spec) -> Result<(), String> {
    let session = connected();
    let until = now() + u64::try_from(AT_LAST.as_nanos()).unwrap();
    let how = OpenOptions::new().stand_by(Some(AT_LAST)).timeout(AT_LAST);
    let began = now();
    let mut segment = session.open(spec.name, &how).map_err(|error| error.to_string())?;
    let Some(mut next) = take(spec, &segment, began) else { return Ok(()) };
    loop {
        if !checkpoint(&mut segment, &mut next) {
            return Err("it is not owned any more".to_owned());
        }
        match session.lookup(spec.name).map_err(|error| error.to_string())?.trouble() {
            Some(trouble) if now() > until => return Err(trouble),
            Some(_) => std::thread::sleep(Duration::from_millis(100)),
            None => break,
        }
    }
    segment.release().map_err(|error| error.to_string())?;
    while !load(&session, spec, &LoadOptions::new()) {
        if now() > until {
            return Err("it cannot be loaded".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
