//! The relay between two legs that play a script.

use std::collections::VecDeque;

use super::*;
use crate::leg::Fill;

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
    /// Whether it drops its answer and ends at once when it is told the end (RFC 5246 §7.2.1).
    obeys: bool,
    /// Takes nothing before it has said all.
    reads_last: bool,
    /// Takes nothing before.
    takes_after: Option<Pin<Box<Sleep>>>,
    /// Whether its FIN can be seen without reading.
    has_ended: bool,
}

enum Step {
    Bytes(Vec<u8>),
    Pause,
    /// Silence for so long.
    Silence(Duration),
    /// The rest of a silence.
    Slept(Pin<Box<Sleep>>),
    /// Silence until the other side has ended.
    UntilEnded,
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
            Some(Step::Silence(time)) => {
                self.fills.push_front(Step::Slept(Box::pin(tokio::time::sleep(time))));
                self.poll_fill(cx, buffer)
            }
            Some(Step::Slept(mut sleep)) => {
                if sleep.as_mut().poll(cx).is_ready() {
                    return self.poll_fill(cx, buffer);
                }
                self.fills.push_front(Step::Slept(sleep));
                Poll::Pending
            }
            Some(Step::UntilEnded) if self.ended.is_some() => self.poll_fill(cx, buffer),
            Some(Step::UntilEnded) => {
                self.fills.push_front(Step::UntilEnded);
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

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!bytes.is_empty() && self.ended.is_none(), "nothing is written after the end, nor nothing at all");
        if self.takes == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.gone || (self.reads_last && !self.fills.is_empty()) {
            return Poll::Pending;
        }
        if self.takes_after.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending()) {
            return Poll::Pending;
        }
        self.takes_after = None;
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
        if self.obeys {
            self.fills = [Ends(how)].into();
        }
        Poll::Ready(Ok(()))
    }

    fn is_gone(&self) -> bool {
        self.gone
    }

    fn has_ended(&self) -> bool {
        self.gone || self.has_ended
    }

    fn poll_linger(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

use Ending::{CloseNotify, Fin, Reset};
use Step::{Bytes, End as Ends, Fail, Pause, Silence, UntilEnded};

const PATIENCE: Patience =
    Patience { open: None, half_closed: Duration::from_millis(400), linger: Duration::from_millis(50) };

/// Less than the patience, and enough to be told from nothing.
const SHORT: Duration = Duration::from_millis(60);
/// More than any test takes.
const PATIENT: Terms = Terms { patience: Patience { half_closed: Duration::from_secs(8), ..PATIENCE }, ..TERMS };
const HOLDING: Terms = Terms { hold: Some(SHORT), ..TERMS };

const TERMS: Terms = Terms { patience: PATIENCE, target_fin: Fin, hold: None };

fn bytes(text: &str) -> Step {
    Bytes(text.as_bytes().to_vec())
}

async fn relayed(client: Scripted, target: Scripted) -> (Outcome, Scripted, Scripted) {
    relayed_by(TERMS, client, target).await
}

async fn relayed_by(terms: Terms, mut client: Scripted, mut target: Scripted) -> (Outcome, Scripted, Scripted) {
    let outcome = run(&mut client, &mut target, terms, &Progress::new()).await;
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
async fn an_answer_reaches_a_client_that_first_sends_all_it_has_though_nobody_takes_it() {
    for last in [Ends(Reset), Ends(Fin), Fail] {
        let target = Scripted::saying([bytes("413 "), bytes("Too Large"), last]).taking(0);
        let says = [bytes("a long upload"), Pause, Bytes(vec![7; 200_000])];
        let client = Scripted { reads_last: true, ..Scripted::saying(says) };
        let (outcome, client, _) = relayed(client, target).await;
        assert_eq!(client.given, b"413 Too Large");
        assert_eq!((outcome.by, outcome.up), (Side::Target, 0));
    }
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
async fn fin_of_the_target_and_nothing_else_becomes_what_the_terms_say() {
    let terms = Terms { target_fin: CloseNotify, ..TERMS };
    for (step, seen) in
        [(Ends(Fin), CloseNotify), (Ends(CloseNotify), CloseNotify), (Ends(Reset), Reset), (Fail, Reset)]
    {
        let target = Scripted::saying([bytes("an answer"), step]);
        let (outcome, client, _) = relayed_by(terms, Scripted::saying([Silence(SHORT), Ends(Fin)]), target).await;
        assert_eq!((client.given.as_slice(), client.ended), (&b"an answer"[..], Some(seen)));
        // The client's own FIN is not meant, and the log tells the truth.
        assert!(seen != CloseNotify || matches!(outcome.end, End::Peer(Fin | CloseNotify)), "{outcome:?}");
    }
    let target = Scripted::saying([UntilEnded, Ends(Fin)]);
    let (outcome, client, target) = relayed_by(terms, Scripted::saying([Ends(Fin)]), target).await;
    assert_eq!((client.ended, target.ended, outcome.by), (Some(CloseNotify), Some(Fin), Side::Client));
    assert!(matches!(outcome.end, End::Peer(Fin)));
}

#[tokio::test]
async fn held_end_leaves_once_the_answer_has_come_and_no_more_follows() {
    let client = || Scripted::saying([bytes("a request"), Ends(CloseNotify)]);
    let obeying = || {
        let answer = [Silence(SHORT * 2), bytes("an "), Silence(SHORT / 2), bytes("answer"), UntilEnded];
        Scripted { obeys: true, ..Scripted::saying(answer) }
    };
    let (_, lost, _) = relayed(client(), obeying()).await;
    assert_eq!((lost.given.as_slice(), lost.ended), (&b""[..], Some(CloseNotify)));
    let began = Instant::now();
    let terms = Terms { hold: Some(SHORT), ..PATIENT };
    let (outcome, whole, target) = relayed_by(terms, client(), obeying()).await;
    assert_eq!((whole.given.as_slice(), whole.ended), (&b"an answer"[..], Some(CloseNotify)));
    assert_eq!((target.ended, outcome.by), (Some(CloseNotify), Side::Client));
    assert!(began.elapsed() >= SHORT * 3 && began.elapsed() < PATIENT.patience.half_closed, "{:?}", began.elapsed());
}

#[tokio::test]
async fn held_end_leaves_after_a_silence_that_then_counts_anew() {
    let client = Scripted::saying([bytes("a request"), Ends(Fin)]);
    // It answers nothing before the end, and takes its time then too.
    let target = Scripted::saying([UntilEnded, Silence(PATIENCE.half_closed / 2), bytes("an answer"), Ends(Fin)]);
    let began = Instant::now();
    let (outcome, client, target) = relayed_by(HOLDING, client, target).await;
    assert_eq!((client.given.as_slice(), client.ended, target.ended), (&b"an answer"[..], Some(Fin), Some(Fin)));
    assert!(matches!(outcome.end, End::Peer(Fin)), "{outcome:?}");
    assert!(began.elapsed() >= PATIENCE.half_closed * 3 / 2, "{:?}", began.elapsed());
    let (outcome, ..) = relayed_by(HOLDING, Scripted::saying([bytes("?"), Ends(Fin)]), Scripted::saying([])).await;
    assert!(matches!(outcome.end, End::Silent(_)), "{outcome:?}");
}

#[tokio::test]
async fn end_to_which_no_answer_is_owed_is_not_held() {
    let began = Instant::now();
    let target = Scripted::saying([UntilEnded, Ends(CloseNotify)]);
    relayed_by(HOLDING, Scripted::saying([Ends(CloseNotify)]), target).await;
    // Nor one behind which nobody listens any more, or whose target has ended.
    let target = Scripted::saying([bytes("an answer"), Ends(Fin)]);
    let client = Scripted::saying([Pause, Pause, Pause, bytes("more"), Ends(CloseNotify)]);
    let (_, _, target) = relayed_by(HOLDING, client, target).await;
    assert_eq!((target.given.as_slice(), target.ended), (&b"more"[..], Some(CloseNotify)));
    let client = Scripted::saying([bytes("a request"), Ends(Reset)]);
    let (_, _, target) = relayed_by(HOLDING, client, Scripted::saying([])).await;
    assert_eq!(target.ended, Some(Reset));
    assert!(began.elapsed() < PATIENCE.half_closed, "{:?}", began.elapsed());
}

#[tokio::test]
async fn end_behind_bytes_that_nobody_takes_counts_as_one() {
    let client = Scripted { has_ended: true, ..Scripted::saying([bytes("an upload")]) };
    let target = Scripted { gone: true, ..Scripted::saying([]) };
    let (outcome, _, target) = relayed(client, target).await;
    assert!(matches!(outcome.end, End::Silent(limit) if limit == PATIENCE.half_closed), "{outcome:?}");
    assert_eq!((outcome.by, target.ended), (Side::Bridge, Some(Reset)));
}

#[tokio::test]
async fn reset_after_a_half_close_is_heard() {
    let client_resets = |terms| async move {
        let client = Scripted { gone: true, ..Scripted::saying([bytes("?"), Ends(CloseNotify)]) };
        let (outcome, _, target) = relayed_by(terms, client, Scripted::saying([])).await;
        assert_eq!((outcome.by, target.ended.is_some()), (Side::Client, true));
        assert!(matches!(outcome.end, End::Peer(Reset)), "{outcome:?}");
    };
    let target_resets = async {
        let target = Scripted { gone: true, ..Scripted::saying([bytes("an answer"), Ends(CloseNotify)]) };
        let (outcome, client, _) = relayed_by(PATIENT, Scripted::saying([]), target).await;
        assert_eq!((client.given.as_slice(), client.ended), (&b"an answer"[..], Some(CloseNotify)));
        assert!(outcome.by == Side::Target && matches!(outcome.end, End::Peer(CloseNotify)), "{outcome:?}");
    };
    tokio::join!(client_resets(PATIENT), client_resets(Terms { hold: Some(SHORT), ..PATIENT }), target_resets);
}

#[tokio::test]
async fn held_end_does_not_leave_while_the_client_takes_its_time() {
    // It would end the answer, of which the rest still lies with the target.
    let full = "an ".repeat(buffer::STREAM / 3 + 1);
    let answer = [bytes(&full), bytes("answer"), UntilEnded];
    let target = Scripted { obeys: true, ..Scripted::saying(answer) };
    let pause = Box::pin(tokio::time::sleep(SHORT * 3));
    let client = Scripted { takes_after: Some(pause), ..Scripted::saying([bytes("a request"), Ends(CloseNotify)]) };
    let (_, client, _) = relayed_by(HOLDING, client, target).await;
    assert!(client.given == (full + "answer").as_bytes(), "{} bytes", client.given.len());
    assert_eq!(client.ended, Some(CloseNotify));
}

#[tokio::test]
async fn held_end_does_not_leave_with_a_request_that_the_target_took_late() {
    // What it said before is no answer to that.
    let says = [bytes("a greeting, "), Silence(SHORT * 4), bytes("an answer"), UntilEnded];
    let pause = Box::pin(tokio::time::sleep(SHORT * 3));
    let target = Scripted { obeys: true, takes_after: Some(pause), ..Scripted::saying(says) };
    let client = Scripted::saying([bytes("a request"), Ends(CloseNotify)]);
    let (_, client, _) = relayed_by(Terms { hold: Some(SHORT), ..PATIENT }, client, target).await;
    assert_eq!((client.given.as_slice(), client.ended), (&b"a greeting, an answer"[..], Some(CloseNotify)));
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
    let pattern =
        |seed: usize| (0..3 << 20).map(|at: usize| u8::try_from((at * 31 + seed) % 251).unwrap()).collect::<Vec<u8>>();
    let client = Scripted::saying([Bytes(pattern(1)), Ends(CloseNotify)]).taking(1000);
    let target = Scripted::saying([Bytes(pattern(2)), Ends(CloseNotify)]).taking(16_411);
    let (_, client, target) = relayed(client, target).await;
    assert!(target.given == pattern(1) && client.given == pattern(2));
}
