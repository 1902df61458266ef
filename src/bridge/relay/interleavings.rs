//! The relay between two legs in every way that a small connection can go.
//!
//! Each leg says up to two chunks and then ends in each of the ways there are. Whenever the relay asks
//! something of a leg, the leg may do it, do a part of it, let the relay wait, or fail, and where
//! several things are waited for, either may happen first. A run has at most so many of these turns
//! for the worse, and every run is played.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use super::*;
use crate::leg::Fill;

/// The choices of one run, and from there those of the next.
struct Choices {
    /// What was chosen, of how many.
    made: Vec<(usize, usize)>,
    at: usize,
    /// How often something else than the first may still be chosen in this run.
    left: usize,
}

impl Choices {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, if self.left > 0 { of } else { 1 }));
        }
        let chosen = self.made[self.at].0;
        self.at += 1;
        self.left -= usize::from(chosen > 0);
        chosen
    }

    /// On to the next run; whether there is one.
    fn advance(&mut self, turns: usize) -> bool {
        (self.at, self.left) = (0, turns);
        while let Some((chosen, of)) = self.made.pop() {
            if chosen + 1 < of {
                self.made.push((chosen + 1, of));
                return true;
            }
        }
        false
    }
}

/// What a leg says last.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    End(Ending),
    Fail,
}

const LASTS: [Last; 5] = [
    Last::End(Ending::CloseNotify),
    Last::End(Ending::Fin),
    Last::End(Ending::Truncated),
    Last::End(Ending::Reset),
    Last::Fail,
];

/// What a leg can be waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    Fill,
    Write,
    Flush,
    End,
}

struct Player {
    choices: Rc<RefCell<Choices>>,
    /// All that it says, and how much of it was said.
    says: Vec<u8>,
    said: usize,
    last: Last,
    /// Whether it has said its last.
    is_done: bool,
    /// What the peer has, and what waits for a flush.
    given: Vec<u8>,
    held: Vec<u8>,
    ended: Option<Ending>,
    failed: bool,
    /// What was offered to a write that had to wait.
    offered: Vec<u8>,
    waits: Vec<Wait>,
    /// Waits that are over.
    ready: Vec<Wait>,
    waker: Waker,
}

/// Bytes in one chunk.
const CHUNK: usize = 2;

impl Player {
    fn new(choices: &Rc<RefCell<Choices>>, first: u8, chunks: usize, last: Last) -> Self {
        Self {
            choices: Rc::clone(choices),
            says: (first..).take(chunks * CHUNK).collect(),
            said: 0,
            last,
            is_done: false,
            given: Vec::new(),
            held: Vec::new(),
            ended: None,
            failed: false,
            offered: Vec::new(),
            waits: Vec::new(),
            ready: Vec::new(),
            waker: Waker::noop().clone(),
        }
    }

    /// What happens to a call: 0, it does its work; 1, it waits; more, as the caller says.
    fn turn(&mut self, cx: &Context<'_>, wait: Wait, of: usize) -> usize {
        self.waker.clone_from(cx.waker());
        self.waits.retain(|other| *other != wait);
        let is_ready = self.ready.contains(&wait);
        self.ready.retain(|other| *other != wait);
        let mut turn = self.choices.borrow_mut().choose(if is_ready { of - 1 } else { of });
        if is_ready && turn > 0 {
            turn += 1;
        }
        if turn == 1 {
            self.waits.push(wait);
        }
        turn
    }

    /// What was waited for happens.
    fn happen(&mut self, wait: Wait) {
        self.waits.retain(|other| *other != wait);
        self.ready.push(wait);
        self.waker.wake_by_ref();
    }

    fn fail<T>(&mut self) -> Poll<io::Result<T>> {
        self.failed = true;
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn is_torn_down(&self) -> bool {
        self.is_done && matches!(self.last, Last::Fail | Last::End(Ending::Reset))
    }
}

impl Leg for Player {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        assert!(!self.is_done, "read after its end");
        if self.turn(cx, Wait::Fill, 2) == 1 {
            return Poll::Pending;
        }
        if self.said < self.says.len() {
            let count = CHUNK.min(buffer.len()).min(self.says.len() - self.said);
            buffer[..count].copy_from_slice(&self.says[self.said..][..count]);
            self.said += count;
            return Poll::Ready(Ok(Fill::Bytes(count)));
        }
        self.is_done = true;
        Poll::Ready(match self.last {
            Last::End(how) => Ok(Fill::Ended(how)),
            Last::Fail => Err(io::Error::other("a broken record")),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!bytes.is_empty(), "a write of nothing");
        assert!(self.ended.is_none() && !self.failed, "written to after the end");
        assert!(bytes.starts_with(&self.offered), "{bytes:?} in place of {:?}", self.offered);
        self.offered.clear();
        let count = match self.turn(cx, Wait::Write, 4) {
            0 => bytes.len(),
            1 => {
                self.offered = bytes.to_vec();
                return Poll::Pending;
            }
            2 => 1,
            _ => return self.fail(),
        };
        self.held.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(!self.failed, "flushed after it failed");
        match self.turn(cx, Wait::Flush, 3) {
            0 => self.given.append(&mut self.held),
            1 => return Poll::Pending,
            _ => return self.fail(),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        if how == Ending::Reset {
            // What it holds is lost.
            self.ended = Some(how);
            return Poll::Ready(Ok(()));
        }
        assert!(self.ended.is_none() && !self.failed, "ended twice");
        match self.turn(cx, Wait::End, 3) {
            0 => self.given.append(&mut self.held),
            1 => return Poll::Pending,
            _ => return self.fail(),
        }
        self.ended = Some(how);
        Poll::Ready(Ok(()))
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn poll_linger(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Longer than any run: no deadline passes.
const LONG: Duration = Duration::from_secs(24 * 3600);

fn terms(holds: bool, target_fin: Ending) -> Terms {
    let patience = Patience { open: None, half_closed: LONG, linger: LONG };
    Terms { patience, target_fin, hold: holds.then_some(LONG) }
}

/// A leg that is looked at while the relay has it.
struct Shared(Rc<RefCell<Player>>);

impl Leg for Shared {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        self.0.borrow_mut().poll_fill(cx, buffer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_end(cx, how)
    }

    fn is_gone(&self) -> bool {
        self.0.borrow().is_gone()
    }

    fn has_ended(&self) -> bool {
        self.0.borrow().has_ended()
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_linger(cx)
    }
}

/// Plays one run to its end.
fn play(terms: Terms, room: usize, client: Player, target: Player) -> (Outcome, Player, Player) {
    let choices = Rc::clone(&client.choices);
    let legs = [Rc::new(RefCell::new(client)), Rc::new(RefCell::new(target))];
    let progress = Progress::new();
    let outcome = {
        let (mut client, mut target) = (Shared(Rc::clone(&legs[0])), Shared(Rc::clone(&legs[1])));
        let mut relay = pin!(run_within(&mut client, &mut target, terms, room, &progress));
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut polls = 0;
        loop {
            if let Poll::Ready(outcome) = relay.as_mut().poll(&mut Context::from_waker(&waker)) {
                break outcome;
            }
            polls += 1;
            assert!(polls < 1000, "it never ends");
            if bell.0.swap(false, Ordering::Relaxed) {
                continue;
            }
            for leg in &legs {
                let leg = leg.borrow();
                let is_leaving = leg.waits.iter().any(|wait| *wait != Wait::Fill);
                let is_lost = leg.failed || leg.is_torn_down();
                assert!(leg.held.is_empty() || is_lost || is_leaving, "unflushed at rest");
            }
            let waits =
                || legs.iter().flat_map(|leg| leg.borrow().waits.clone().into_iter().map(move |wait| (leg, wait)));
            let count = waits().count();
            assert!(count > 0, "it waits for nothing");
            let chosen = choices.borrow_mut().choose(count);
            let (leg, wait) = waits().nth(chosen).unwrap();
            leg.borrow_mut().happen(wait);
            assert!(bell.0.swap(false, Ordering::Relaxed), "{wait:?} wakes nobody");
        }
    };
    let [client, target] = legs.map(|leg| Rc::into_inner(leg).unwrap().into_inner());
    (outcome, client, target)
}

/// Judges how a run has ended.
fn judge(terms: Terms, outcome: &Outcome, client: &Player, target: &Player) {
    let passed_on = |from: &Player, fin: Ending| match from.last {
        Last::End(Ending::Fin) => fin,
        Last::End(how) => how,
        Last::Fail => Ending::Reset,
    };
    for (from, to, fin) in [(client, target, Ending::Fin), (target, client, terms.target_fin)] {
        let is_whole = to.given == from.says && to.ended == Some(passed_on(from, fin));
        let is_free = !to.failed && !to.is_torn_down();
        // A target is let go with a client that can't be answered.
        let is_let_go = std::ptr::eq(from, client) && from.failed;
        assert!(is_whole || !is_free || is_let_go, "incomplete: {:?} {:?}", to.given, to.ended);
        assert!(is_whole || matches!(to.ended, None | Some(Ending::Reset)), "cut, and ended as if whole");
        assert!(from.says.starts_with(&to.given), "other bytes: {:?}", to.given);
    }
    let sum = |leg: &Player| (leg.given.len() + leg.held.len()) as u64;
    assert_eq!((outcome.up, outcome.down), (sum(target), sum(client)));
    let first = match outcome.by {
        Side::Client => client,
        Side::Target => target,
        Side::Bridge => panic!("no deadline has passed"),
    };
    match (&outcome.end, first.last) {
        (End::Peer(how), Last::End(last)) => assert!(first.is_done && *how == last),
        (End::Failed(_), Last::Fail) if first.is_done => {}
        (End::Failed(_), _) => assert!(client.failed && outcome.by == Side::Client),
        other => panic!("{other:?}"),
    }
    // The other one was not seen before.
    assert!(first.is_done || !(client.is_done || target.is_done));
}

/// Plays every run with these terms and at most this many turns for the worse; how many there were.
fn play_all(terms: Terms, room: usize, turns: usize, chunks: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _context = runtime.enter();
    let mut runs = 0;
    for (up, down) in (0..=chunks).flat_map(|up| (0..=chunks).map(move |down| (up, down))) {
        for (of_client, of_target) in LASTS.iter().flat_map(|a| LASTS.iter().map(move |b| (*a, *b))) {
            let choices = Rc::new(RefCell::new(Choices { made: Vec::new(), at: 0, left: turns }));
            loop {
                let client = Player::new(&choices, 1, up, of_client);
                let target = Player::new(&choices, 101, down, of_target);
                let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let (outcome, client, target) = play(terms, room, client, target);
                    judge(terms, &outcome, &client, &target);
                    if terms.hold.is_some()
                        && outcome.up > 0
                        && matches!(target.ended, Some(how) if how != Ending::Reset)
                    {
                        assert!(target.is_done, "told the end while it owed an answer");
                    }
                }));
                runs += 1;
                if let Err(panic) = played {
                    eprintln!("{up} chunks, {of_client:?}; {down} chunks, {of_target:?}; {:?}", choices.borrow().made);
                    std::panic::resume_unwind(panic);
                }
                if !choices.borrow_mut().advance(turns) {
                    break;
                }
            }
        }
    }
    runs
}

/// Some 375,000 runs for each size of the buffers.
const TURNS_FOR_THE_WORSE: usize = 3;

#[test]
fn every_small_connection_keeps_what_the_relay_promises() {
    let ends = [(false, Ending::Fin), (false, Ending::CloseNotify), (true, Ending::Fin)];
    // A chunk, a chunk and a part of the next, all that is said.
    let all = [CHUNK, CHUNK + 1, buffer::STREAM].map(|room| ends.map(|(holds, fin)| (holds, fin, room)));
    let all = all.concat();
    let runs: usize = std::thread::scope(|scope| {
        let play = |(holds, fin, room)| scope.spawn(move || play_all(terms(holds, fin), room, TURNS_FOR_THE_WORSE, 2));
        let threads: Vec<_> = all.into_iter().map(play).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    eprintln!("{runs} runs");
    assert!(runs > 900_000, "{runs} runs");
}
