//! Moves bytes between two legs until both have ended.
//!
//! Knows no TLS and no sockets. One buffer a direction is all that is ever held: while it is not
//! empty nothing more is read from that side, and that is the back-pressure.
//!
//! Invariants:
//! * bytes leave in the order they came, each exactly once;
//! * an ending is passed on as it came, after every byte before it;
//! * a side that can't be written to any more is still read to its end, so that an answer sent
//!   before the connection broke arrives whole;
//! * a reset or a failure of one side is passed on as a reset, after every byte that came before it;
//!   what was under way to that side is dropped with it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::leg::{Ending, Fill, Leg};

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While both directions are open; `None`: forever.
    pub open: Option<Duration>,
    /// Once one direction has ended.
    pub half_closed: Duration,
    /// For the peers to take what was sent and end in turn.
    pub linger: Duration,
}

/// Which leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The modern one.
    Client,
    /// The legacy one.
    Target,
    /// Neither: we ended it.
    Bridge,
}

/// How a connection went.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes taken from the client and given to the target.
    pub up: u64,
    /// Bytes taken from the target and given to the client.
    pub down: u64,
    /// Who ended it: the first side whose end was seen.
    pub by: Side,
    /// How.
    pub end: End,
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// As the peer said.
    Peer(Ending),
    /// A leg failed: a broken record, a lost connection.
    Failed(io::Error),
    /// Silence beyond the patience.
    Silent(Duration),
}

/// Bytes in flight in either direction: one full TLS record.
const BUFFER: usize = 16 << 10;

/// How often a direction goes on before the other gets its turn, and how many turns both get
/// before other connections do.
const TURNS: usize = 16;

/// Moves bytes until both legs have ended, one has failed, or silence lasts too long.
///
/// # Cancel safety
/// Dropping the future drops bytes in its buffers: only for ending the connection.
pub async fn run(client: &mut impl Leg, target: &mut impl Leg, patience: Patience) -> Outcome {
    let mut relay = Relay::new(patience);
    let outcome = poll_fn(|cx| relay.poll(cx, client, target)).await;
    // A client that is gone takes nothing more. One whose target broke off may have an answer to read.
    let client_is_gone = outcome.by == Side::Client && matches!(outcome.end, End::Failed(_) | End::Peer(Ending::Reset));
    if !client_is_gone && !matches!(outcome.end, End::Silent(_)) {
        let mut left = (true, true);
        let lingering = poll_fn(|cx| {
            left.0 = left.0 && target.poll_linger(cx).is_pending();
            left.1 = left.1 && client.poll_linger(cx).is_pending();
            if left == (false, false) { Poll::Ready(()) } else { Poll::Pending }
        });
        // Who does not end in time is closed all the same.
        let _ = tokio::time::timeout(patience.linger, lingering).await;
    }
    outcome
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Bytes may come.
    Open,
    /// The source has ended so; the sink must be told after the last byte.
    Ending(Ending),
    /// The sink has been told.
    Done,
    /// The sink can't be written to any more; the source is left alone.
    Broken,
}

/// One direction: its buffer and how far it is.
#[derive(Debug)]
struct Direction {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    state: State,
    moved: u64,
    /// Something was written since the last flush.
    unflushed: bool,
    /// How the source ended, until the relay has taken note.
    news: Option<End>,
}

impl Direction {
    fn new() -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { buffer, start: 0, end: 0, state: State::Open, moved: 0, unflushed: false, news: None }
    }

    /// Goes as far as it can without waiting; whether anything has changed.
    fn poll(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, sink: &mut impl Leg) -> bool {
        for turn in 0..TURNS {
            let step = match self.state {
                State::Done | State::Broken => Poll::Pending,
                State::Open if self.start == self.end => self.fill(cx, source, sink),
                State::Ending(how) if self.start == self.end => self.pass_end(cx, sink, how),
                State::Open | State::Ending(_) => self.write(cx, sink),
            };
            if step.is_pending() {
                return turn > 0;
            }
        }
        true
    }

    fn fill(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, sink: &mut impl Leg) -> Poll<()> {
        match source.poll_fill(cx, &mut self.buffer) {
            Poll::Ready(Ok(Fill::Bytes(count))) => (self.start, self.end) = (0, count),
            Poll::Ready(Ok(Fill::Ended(how))) => {
                self.state = State::Ending(how);
                self.news = Some(End::Peer(how));
            }
            Poll::Ready(Err(error)) => {
                self.state = State::Ending(Ending::Reset);
                self.news = Some(End::Failed(error));
            }
            Poll::Pending => return self.flush(cx, sink),
        }
        Poll::Ready(())
    }

    fn write(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg) -> Poll<()> {
        match sink.poll_write(cx, &self.buffer[self.start..self.end]) {
            Poll::Ready(Ok(count)) => {
                self.start += count;
                self.moved += count as u64;
                self.unflushed = true;
            }
            Poll::Ready(Err(_)) => self.state = State::Broken,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// Nothing comes for now, so that what was written should leave; `Ready` only if the sink is lost.
    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg) -> Poll<()> {
        if !self.unflushed {
            return Poll::Pending;
        }
        match sink.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.unflushed = false,
            Poll::Ready(Err(_)) => {
                self.state = State::Broken;
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        Poll::Pending
    }

    fn pass_end(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg, how: Ending) -> Poll<()> {
        if how == Ending::Reset && self.unflushed {
            // A reset waits for nothing, so what was taken must have left before it.
            match sink.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => {
                    self.state = State::Broken;
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        match sink.poll_end(cx, how) {
            Poll::Ready(Ok(())) => self.state = State::Done,
            Poll::Ready(Err(_)) => self.state = State::Broken,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Broken)
    }

    /// Bytes wait for a sink that does not take them, and the source is not looked at.
    fn is_stuck(&self) -> bool {
        self.start < self.end && !self.is_over()
    }
}

struct Relay {
    up: Direction,
    down: Direction,
    /// The end that was seen first: the one to tell.
    first: Option<(Side, End)>,
    patience: Patience,
    last_progress: Instant,
    /// When the legs were last asked whether they are gone.
    last_look: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// How often a side that can't be read is asked whether it is still there.
const LOOK: Duration = Duration::from_secs(1);

impl Relay {
    fn new(patience: Patience) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now));
        Self {
            up: Direction::new(),
            down: Direction::new(),
            first: None,
            patience,
            last_progress: now,
            last_look: now,
            alarm,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, client: &mut impl Leg, target: &mut impl Leg) -> Poll<Outcome> {
        for _ in 0..TURNS {
            let up_moved = self.up.poll(cx, client, target);
            let down_moved = self.down.poll(cx, target, client);
            self.note_ends();
            if self.is_over() {
                self.drop_what_is_left(client, target);
                return Poll::Ready(self.outcome());
            }
            if !up_moved && !down_moved {
                return self.wait(cx, client, target);
            }
            self.last_progress = Instant::now();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes note of what the directions have met. A side that is gone needs no more bytes.
    fn note_ends(&mut self) {
        let gone = |end: &End| matches!(end, End::Failed(_) | End::Peer(Ending::Reset));
        if let Some(end) = self.up.news.take() {
            if gone(&end) {
                self.down.state = State::Broken;
            }
            self.first.get_or_insert((Side::Client, end));
        }
        if let Some(end) = self.down.news.take() {
            if gone(&end) {
                self.up.state = State::Broken;
            }
            self.first.get_or_insert((Side::Target, end));
        }
    }

    /// Both directions are over, or the client can't be answered any more: then the target, which
    /// may hold one of Exchange's few streaming places for it, is let go at once.
    fn is_over(&self) -> bool {
        self.down.state == State::Broken || (self.up.is_over() && self.down.is_over())
    }

    /// Waits for the legs, with a limit to the silence and an eye on those that can't be read.
    fn wait(&mut self, cx: &mut Context<'_>, client: &mut impl Leg, target: &mut impl Leg) -> Poll<Outcome> {
        loop {
            let limit = if self.first.is_none() { self.patience.open } else { Some(self.patience.half_closed) };
            let silent = limit.map(|limit| self.last_progress + limit);
            let stuck = self.up.is_stuck() || self.down.is_stuck();
            let look = stuck.then(|| self.last_look.max(self.last_progress) + LOOK);
            let Some(deadline) = silent.into_iter().chain(look).min() else {
                return Poll::Pending;
            };
            if self.alarm.deadline() != deadline {
                self.alarm.as_mut().reset(deadline);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.last_look = Instant::now();
            let by = if client.is_gone() {
                (Side::Client, End::Peer(Ending::Reset))
            } else if target.is_gone() && !self.down.is_stuck() {
                (Side::Target, End::Peer(Ending::Reset))
            } else if let Some(limit) = limit.filter(|limit| self.last_progress + *limit <= self.last_look) {
                (Side::Bridge, End::Silent(limit))
            } else {
                continue;
            };
            self.first = Some(by);
            self.drop_what_is_left(client, target);
            return Poll::Ready(self.outcome());
        }
    }

    /// Ends what has not ended in due form, without a word that could be taken for a whole answer.
    fn drop_what_is_left(&self, client: &mut impl Leg, target: &mut impl Leg) {
        let mut cx = Context::from_waker(Waker::noop());
        if self.down.state != State::Done {
            let _ = client.poll_end(&mut cx, Ending::Reset);
        }
        // An answered connection whose target stopped reading has ended well enough.
        let answered = self.down.state == State::Done && self.up.state == State::Broken;
        if self.up.state != State::Done && !answered {
            let _ = target.poll_end(&mut cx, Ending::Reset);
        }
    }

    fn outcome(&mut self) -> Outcome {
        let lost = || (Side::Client, End::Failed(io::ErrorKind::BrokenPipe.into()));
        let (by, end) = self.first.take().unwrap_or_else(lost);
        Outcome { up: self.up.moved, down: self.down.moved, by, end }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A leg that plays a script and remembers what it was given.
    #[derive(Default)]
    struct Scripted {
        fills: VecDeque<Step>,
        /// How much a write takes at most; 0: it fails.
        takes: usize,
        given: Vec<u8>,
        ended: Option<Ending>,
        /// Whether it takes what it is given only to hold it until it is flushed.
        holds: bool,
        held: Vec<u8>,
        flushes_late: bool,
        gone: bool,
    }

    enum Step {
        Bytes(Vec<u8>),
        Pause,
        End(Ending),
        Fail,
    }

    impl Scripted {
        fn saying(fills: impl IntoIterator<Item = Step>) -> Self {
            Self { fills: fills.into_iter().collect(), takes: usize::MAX, ..Self::default() }
        }

        fn taking(mut self, count: usize) -> Self {
            self.takes = count;
            self
        }
    }

    impl Leg for Scripted {
        fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
            match self.fills.pop_front() {
                Some(Step::Bytes(bytes)) => {
                    let count = bytes.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    if count < bytes.len() {
                        self.fills.push_front(Step::Bytes(bytes[count..].to_vec()));
                    }
                    Poll::Ready(Ok(Fill::Bytes(count)))
                }
                Some(Step::Pause) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Step::End(how)) => {
                    self.fills.push_front(Step::End(how));
                    Poll::Ready(Ok(Fill::Ended(how)))
                }
                Some(Step::Fail) => Poll::Ready(Err(io::Error::other("bad record"))),
                None => Poll::Pending,
            }
        }

        fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            assert!(!bytes.is_empty() && self.ended.is_none(), "nothing is written after the end, nor nothing at all");
            if self.takes == 0 {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.gone {
                return Poll::Pending;
            }
            let count = bytes.len().min(self.takes);
            if self.holds { &mut self.held } else { &mut self.given }.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if std::mem::take(&mut self.flushes_late) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.given.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_end(&mut self, _: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
            self.ended = Some(how);
            Poll::Ready(Ok(()))
        }

        fn is_gone(&self) -> bool {
            self.gone
        }

        fn poll_linger(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    use Ending::{CloseNotify, Fin, Reset};
    use Step::{Bytes, End as Ends, Fail, Pause};

    const PATIENCE: Patience =
        Patience { open: None, half_closed: Duration::from_millis(50), linger: Duration::from_millis(50) };

    fn bytes(text: &str) -> Step {
        Bytes(text.as_bytes().to_vec())
    }

    async fn relayed(mut client: Scripted, mut target: Scripted) -> (Outcome, Scripted, Scripted) {
        let outcome = run(&mut client, &mut target, PATIENCE).await;
        (outcome, client, target)
    }

    #[tokio::test]
    async fn a_reply_after_a_half_close_arrives_whole() {
        let client = Scripted::saying([bytes("request"), Ends(CloseNotify)]);
        let target = Scripted::saying([Pause, Pause, bytes("late "), Pause, bytes("reply"), Ends(CloseNotify)]);
        let (outcome, client, target) = relayed(client, target).await;
        assert_eq!((target.given.as_slice(), target.ended), (&b"request"[..], Some(CloseNotify)));
        assert_eq!((client.given.as_slice(), client.ended), (&b"late reply"[..], Some(CloseNotify)));
        assert_eq!((outcome.up, outcome.down, outcome.by), (7, 10, Side::Client));
        assert!(matches!(outcome.end, End::Peer(CloseNotify)));
    }

    #[tokio::test]
    async fn every_ending_is_passed_on_as_it_came_after_the_last_byte() {
        for how in [CloseNotify, Fin, Reset] {
            let client = Scripted::saying([Pause, Pause, Pause, Ends(CloseNotify)]).taking(3);
            let target = Scripted::saying([bytes("some bytes"), Ends(how)]);
            let (outcome, client, _) = relayed(client, target).await;
            assert_eq!((client.given.as_slice(), client.ended), (&b"some bytes"[..], Some(how)), "{how:?}");
            assert!(matches!(outcome.end, End::Peer(seen) if seen == how), "{how:?}");
        }
    }

    #[tokio::test]
    async fn a_reset_leaves_only_after_what_the_sink_holds() {
        let client = Scripted { holds: true, flushes_late: true, ..Scripted::saying([]) };
        let (_, client, _) = relayed(client, Scripted::saying([bytes("the last record"), Ends(Reset)])).await;
        assert_eq!((client.given.as_slice(), client.ended), (&b"the last record"[..], Some(Reset)));
    }

    #[tokio::test]
    async fn a_client_that_is_gone_behind_unread_bytes_frees_a_target_that_takes_none() {
        let client = Scripted { gone: true, ..Scripted::saying([bytes("an upload")]) };
        let target = Scripted { gone: true, ..Scripted::saying([]) };
        let (outcome, _, target) = relayed(client, target).await;
        assert_eq!((outcome.by, target.ended), (Side::Client, Some(Reset)));
    }

    #[tokio::test]
    async fn a_broken_record_never_becomes_a_clean_end() {
        let target = Scripted::saying([bytes("half an ans"), Fail]);
        let (outcome, client, _) = relayed(Scripted::saying([]), target).await;
        assert_eq!((client.given.as_slice(), client.ended), (&b"half an ans"[..], Some(Reset)));
        assert!(matches!(outcome.end, End::Failed(_)));
        assert_eq!(outcome.by, Side::Target);
    }

    #[tokio::test]
    async fn an_answer_outlives_a_target_that_takes_no_more() {
        let client = Scripted::saying([bytes("a long upload"), bytes("more"), Pause, Ends(CloseNotify)]);
        let target = Scripted::saying([Pause, Pause, bytes("401"), Ends(CloseNotify)]).taking(0);
        let (outcome, client, target) = relayed(client, target).await;
        assert_eq!((client.given.as_slice(), client.ended), (&b"401"[..], Some(CloseNotify)));
        assert_eq!((outcome.up, target.given.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_client_that_is_gone_frees_the_target_at_once() {
        for client in [Scripted::saying([Ends(Reset)]), Scripted::saying([]).taking(0), Scripted::saying([Fail])] {
            let target = Scripted::saying([Pause, bytes("an event nobody hears")]);
            let (_, _, target) = relayed(client, target).await;
            assert_eq!(target.ended, Some(Reset));
        }
    }

    #[tokio::test]
    async fn silence_after_a_half_close_is_cut_and_told() {
        let (outcome, client, target) =
            relayed(Scripted::saying([Ends(CloseNotify)]), Scripted::saying([bytes("part")])).await;
        assert!(matches!(outcome.end, End::Silent(_)));
        assert_eq!(outcome.by, Side::Bridge);
        assert_eq!((client.ended, target.ended), (Some(Reset), Some(CloseNotify)));
    }

    #[tokio::test]
    async fn silence_of_an_open_connection_is_never_cut_by_default() {
        let long = tokio::time::timeout(
            PATIENCE.half_closed * 4,
            relayed(Scripted::saying([bytes("a request")]), Scripted::saying([bytes("a stream")])),
        );
        assert!(long.await.is_err());
    }

    #[tokio::test]
    async fn megabytes_cross_both_ways_in_any_portion() {
        let pattern = |seed: usize| {
            (0..3 << 20).map(|at: usize| u8::try_from((at * 31 + seed) % 251).unwrap()).collect::<Vec<u8>>()
        };
        let client = Scripted::saying([Bytes(pattern(1)), Ends(CloseNotify)]).taking(1000);
        let target = Scripted::saying([Bytes(pattern(2)), Ends(CloseNotify)]).taking(16_411);
        let (_, client, target) = relayed(client, target).await;
        assert!(target.given == pattern(1) && client.given == pattern(2));
    }
}
