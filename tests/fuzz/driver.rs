//! Runs one thing on mutated inputs for a while, on every processor, and keeps what breaks it.
//!
//! There is no look inside the program: what an input led to, in a word, is all that is known of it,
//! and an input that led to something new is mutated further.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::mutate::{Shape, mutate};

/// Something that takes bytes from outside.
pub trait Subject {
    /// Takes them and says in a word what came of it. Panics if a rule is broken.
    fn take(&mut self, input: &[u8]) -> String;
}

/// A time of mutating for one kind of input.
pub struct Campaign {
    /// The name, in what is printed and in files' names.
    pub name: &'static str,
    /// The folder in `tests/fuzz/corpus` whose inputs are mutated.
    pub corpus: &'static str,
    pub shape: Shape,
    /// How many hundredths of the whole time it takes.
    pub share: u32,
    /// Threads for each processor: more than one where an input waits now and then.
    pub threads: usize,
}

/// The whole time where nothing else is said.
const SECONDS: u64 = 12;
/// No input takes longer, on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(20);
/// So many interesting inputs are kept by each thread.
const POOL: usize = 500;
/// What may be in use after a campaign that was not before it. The directed tests of this program may
/// run beside it.
const LEFT: usize = 16 << 20;

/// What one thread is at.
struct Work {
    /// Milliseconds since the start at which the input began; 0: none is under way.
    since: AtomicU64,
    executions: AtomicU64,
    connected: AtomicU64,
    file: PathBuf,
}

/// The gate's verdict must not hang on chance; whoever looks for more names another number.
const SEED: u64 = 1;

impl Campaign {
    /// Runs all of the corpus, and then mutations of it until the time is over.
    pub fn run<S: Subject>(&self, subject: impl Fn() -> S + Sync) {
        // One after another: each is to have all processors.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
        let seconds = number("EWSBRIDGE_FUZZ_SECONDS").unwrap_or(SECONDS);
        let seed = number("EWSBRIDGE_FUZZ_SEED").unwrap_or(SEED);
        let time = Duration::from_secs(seconds) * self.share / 100;
        let corpus = corpus(self.corpus);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        fs::create_dir_all(&folder).expect("a folder for what fails");
        let threads = self.threads * thread::available_parallelism().map_or(1, usize::from);
        // With the seed in it: no later run takes it away.
        let file = |thread| folder.join(format!("{}-{seed}-{thread}.bin", self.name));
        let work: Vec<Work> = (0..threads)
            .map(|thread| Work {
                since: AtomicU64::new(0),
                executions: AtomicU64::new(0),
                connected: AtomicU64::new(0),
                file: file(thread),
            })
            .collect();
        let (started, over, outcomes) = (Instant::now(), AtomicBool::new(false), Mutex::new(HashSet::new()));
        let before = in_use();
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for (thread, work) in work.iter().enumerate() {
                let (corpus, over, outcomes, subject) = (&corpus, &over, &outcomes, &subject);
                threads.push(scope.spawn(move || {
                    let chance = Chance::new(seed.wrapping_mul(1000).wrapping_add(thread as u64));
                    let all = self.work(subject(), corpus, chance, work, started, over);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
                }));
            }
            while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                thread::sleep(Duration::from_millis(20));
                self.watch(&work, started);
                if started.elapsed() > time {
                    over.store(true, Ordering::SeqCst);
                }
            }
        });
        let sum =
            |of: fn(&Work) -> &AtomicU64| -> u64 { work.iter().map(|work| of(work).load(Ordering::SeqCst)).sum() };
        let (executions, connected) = (sum(|work| &work.executions), sum(|work| &work.connected));
        let left = in_use().saturating_sub(before);
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner).len();
        println!(
            "fuzz {}: seed {seed}, {executions} executions in {:.1} s, {:.0}/s, {connected} connected; \
             {} inputs to begin with, {outcomes} outcomes; {} KiB left in use",
            self.name,
            started.elapsed().as_secs_f64(),
            executions as f64 / started.elapsed().as_secs_f64(),
            corpus.len(),
            left >> 10,
        );
        assert!(left < LEFT, "{}: {left} bytes are left in use", self.name);
        assert!(executions > 100, "{}: {executions} executions say nothing", self.name);
    }

    /// One thread's share; gives what came of the inputs.
    fn work<S: Subject>(
        &self,
        mut subject: S,
        corpus: &[Vec<u8>],
        mut chance: Chance,
        work: &Work,
        started: Instant,
        over: &AtomicBool,
    ) -> HashSet<String> {
        let file = File::create(&work.file).expect("a file for what fails");
        let (mut pool, mut outcomes) = (corpus.to_vec(), HashSet::new());
        let mut count = 0;
        while count < corpus.len() || !over.load(Ordering::SeqCst) {
            let input = match corpus.get(count) {
                Some(input) => input.clone(),
                // What was new lately is likely to lead on.
                None => {
                    let recent = pool.len() - chance.below(pool.len().min(64)) - 1;
                    let base = if chance.once_in(2) { recent } else { chance.below(pool.len()) };
                    let other = chance.below(pool.len());
                    mutate(&mut chance, self.shape, &pool[base], &pool[other])
                }
            };
            // Before it is tried: a crash leaves it behind.
            keep(&file, &input).expect("a file for what fails");
            work.since.store(millis(started).max(1), Ordering::SeqCst);
            match catch_unwind(AssertUnwindSafe(|| subject.take(&input))) {
                Ok(outcome) => {
                    if outcome.starts_with("connected") {
                        work.connected.fetch_add(1, Ordering::SeqCst);
                    }
                    if outcomes.insert(outcome) && count >= corpus.len() && pool.len() < POOL {
                        pool.push(input);
                    }
                }
                Err(_) => {
                    over.store(true, Ordering::SeqCst);
                    panic!("{}: the input that did this is {}", self.name, work.file.display());
                }
            }
            work.since.store(0, Ordering::SeqCst);
            work.executions.fetch_add(1, Ordering::SeqCst);
            count += 1;
        }
        let _ = fs::remove_file(&work.file);
        outcomes
    }

    /// An input without an end ends the program: nothing else can stop it.
    fn watch(&self, work: &[Work], started: Instant) {
        let now = millis(started);
        for work in work {
            let since = work.since.load(Ordering::SeqCst);
            if since > 0 && now.saturating_sub(since) > u64::try_from(LONGEST.as_millis()).expect("64 bits") {
                println!("fuzz {}: no end after {LONGEST:?}; the input is {}", self.name, work.file.display());
                std::process::abort();
            }
        }
    }
}

/// Bytes that this process has allocated and not freed, by Rust and by C.
fn in_use() -> usize {
    // SAFETY: it reads the allocator's own counters.
    #[allow(unsafe_code)]
    let now = unsafe { libc::mallinfo2() };
    now.uordblks + now.hblkhd
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).expect("64 bits")
}

fn keep(file: &File, input: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(input, 0)
}

/// The saved inputs for a campaign, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a folder of inputs").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{}: no inputs", folder.display());
    files.iter().map(|file| fs::read(file).expect("an input")).collect()
}
