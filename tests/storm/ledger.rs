//! What is known of each connection, the judgement on it, and the table at the end.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::flow::{End, Heard};
use super::plan::{Kind, Plan};

/// What the target says of a connection.
#[derive(Clone, Debug)]
pub enum Word {
    /// It has begun.
    Serving,
    /// It went its way.
    Done(Heard),
    /// The target was killed under it.
    Hurt(Heard),
}

/// What became of a connection's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// As planned, to the last byte.
    Whole,
    /// Its target was killed under it, and both sides know.
    Hurt,
    /// It was told that there is no target.
    Refused,
}

#[derive(Default)]
pub struct Ledger {
    pub seed: u64,
    next: AtomicU32,
    pub open: AtomicU32,
    /// Outages begun, and how many last.
    outages: AtomicU64,
    lasting: AtomicU64,
    pub changes: Mutex<BTreeMap<&'static str, u64>>,
    words: Mutex<HashMap<u32, Word>>,
    fates: Mutex<BTreeMap<(Kind, Fate), u64>>,
    bytes: [AtomicU64; 2],
    pub defects: Mutex<Vec<String>>,
}

/// A look at the outages, to ask later whether there was one since.
#[derive(Clone, Copy)]
pub struct Weather(u64, bool);

impl Ledger {
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// A number for the next connection.
    pub fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// How many numbers are given.
    pub fn known(&self) -> u32 {
        self.next.load(Ordering::SeqCst)
    }

    pub fn outage_begins(&self) {
        self.lasting.fetch_add(1, Ordering::SeqCst);
        self.outages.fetch_add(1, Ordering::SeqCst);
    }

    pub fn outage_ends(&self) {
        self.lasting.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn weather(&self) -> Weather {
        Weather(self.outages.load(Ordering::SeqCst), self.lasting.load(Ordering::SeqCst) > 0)
    }

    /// Whether a target was down at any time since.
    pub fn stormy_since(&self, then: Weather) -> bool {
        let now = self.weather();
        then.1 || now.1 || now.0 != then.0
    }

    pub fn count(&self, what: &'static str) {
        *self.changes.lock().expect("no panic").entry(what).or_default() += 1;
    }

    pub fn say(&self, id: u32, word: Word) {
        self.words.lock().expect("no panic").insert(id, word);
    }

    /// What the target says of a connection; forgotten once it is final.
    pub fn word(&self, id: u32) -> Option<Word> {
        let mut words = self.words.lock().expect("no panic");
        match words.get(&id) {
            Some(Word::Serving) => Some(Word::Serving),
            _ => words.remove(&id),
        }
    }

    pub fn defect(&self, text: String) {
        eprintln!("DEFECT {text}");
        self.defects.lock().expect("no panic").push(text);
    }

    pub fn fate(&self, kind: Kind, fate: Fate) {
        *self.fates.lock().expect("no panic").entry((kind, fate)).or_default() += 1;
    }

    /// How many connections had this fate.
    pub fn total(&self, fate: Fate) -> u64 {
        let fates = self.fates.lock().expect("no panic");
        fates.iter().filter(|((_, is), _)| *is == fate).map(|(_, count)| count).sum()
    }

    /// Judges a connection by its two ends.
    pub fn judge(&self, id: u32, plan: &Plan, client: &Heard, wrote: bool, word: Option<Word>, stormy: bool) {
        let said = format!("connection {id} ({plan:?}): client {client:?}, wrote all: {wrote}; target {word:?}");
        let (target, hurt) = match word {
            Some(Word::Done(target)) => (target, false),
            Some(Word::Hurt(target)) => (target, true),
            Some(Word::Serving) => return self.defect(format!("leaked: its target still serves: {said}")),
            // Killed before a byte was read, or broken off before one was sent.
            None if stormy => (Heard::nothing(), true),
            // A reset may overtake what was sent before it, and so does a FIN with something unread.
            None if matches!(plan.kind, Kind::ClientReset | Kind::ClientGone) => (Heard::nothing(), false),
            None => return self.defect(format!("lost: its target never heard of it: {said}")),
        };
        self.bytes[0].fetch_add(target.length, Ordering::SeqCst);
        self.bytes[1].fetch_add(client.length, Ordering::SeqCst);
        let mut faults = Vec::new();
        for (heard, whole, side) in [(client, plan.down.length, "answer"), (&target, plan.up.length, "request")] {
            if let Some((offset, wrong)) = &heard.wrong {
                faults.push(format!("{side}: at {offset}: {wrong}"));
            }
            if heard.length > whole {
                faults.push(format!("{side}: {} bytes too many", heard.length - whole));
            }
            if heard.end == End::Clean && heard.length < whole {
                faults.push(format!("{side}: lost: {} of {whole} bytes and then a clean end", heard.length));
            }
        }
        if !hurt {
            faults.extend(expected(plan, client, &target, wrote));
        }
        if faults.is_empty() {
            self.fate(plan.kind, if hurt { Fate::Hurt } else { Fate::Whole });
        } else {
            self.defect(format!("{}: {said}", faults.join("; ")));
        }
    }

    /// The table of what was survived.
    pub fn table(&self) -> String {
        let mut text = format!("{:<16}{:>10}{:>10}{:>10}\n", "connections", "whole", "hurt", "refused");
        let fates = self.fates.lock().expect("no panic");
        let kinds: std::collections::BTreeSet<Kind> = fates.keys().map(|(kind, _)| *kind).collect();
        let of = |kind, fate| fates.get(&(kind, fate)).copied().unwrap_or_default();
        let mut row = |name: &str, counts: [u64; 3]| {
            writeln!(text, "{name:<16}{:>10}{:>10}{:>10}", counts[0], counts[1], counts[2]).expect("a String");
        };
        let mut sum = [0; 3];
        for kind in kinds {
            let counts = [Fate::Whole, Fate::Hurt, Fate::Refused].map(|fate| of(kind, fate));
            row(&format!("{kind:?}"), counts);
            sum = [0, 1, 2].map(|index| sum[index] + counts[index]);
        }
        row("all", sum);
        let [up, down] = [0, 1].map(|way| self.bytes[way].load(Ordering::SeqCst) >> 20);
        writeln!(text, "{up} MiB up and {down} MiB down checked").expect("a String");
        for (what, count) in self.changes.lock().expect("no panic").iter() {
            writeln!(text, "{what}: {count}").expect("a String");
        }
        text
    }
}

/// What is not as it was planned, of a connection whose target lived.
fn expected(plan: &Plan, client: &Heard, target: &Heard, wrote: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    match plan.kind {
        Kind::ClientReset | Kind::ClientGone => {
            must(target.end != End::Clean, "a request that broke off ended cleanly");
        }
        Kind::TargetReset => must(client.end != End::Clean, "an answer that broke off ended cleanly"),
        kind => {
            must(wrote, "lost: the request was not taken");
            must(target.length == plan.up.length, "lost: the request is short");
            must(client.length == plan.down.length, "lost: the answer is short");
            let end = if kind == Kind::TargetFin { End::Fin } else { End::Clean };
            must(client.end == end, "the answer's end is not the target's");
            must(kind == Kind::TargetFin || target.end == End::Clean, "the request's end is not the client's");
        }
    }
    faults
}
