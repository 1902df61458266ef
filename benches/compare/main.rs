//! Side by side with other proxies: `cargo bench --bench compare`. docs/performance.md says what is
//! measured and how, and has the table that `--write` puts there.
//!
//! Each round takes every proxy in turn through a row's work, so that all of them meet the machine in
//! the same mood; what counts is the ratio within a round.

#![allow(clippy::cast_precision_loss)]

mod checks;
mod floor;
mod instructions;
mod load;
mod machine;
mod material;
mod measure;
mod peers;
mod plot;
mod report;
mod rows;
mod scale;
mod started;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use checks::Ability;
use material::Material;
use peers::Peer;
use report::Measured;
use rows::{ROWS, Row, Sizes};

/// Measures this program beside nginx, HAProxy, stunnel and socat.
#[derive(Parser)]
#[command(name = "cargo bench --bench compare --")]
struct Options {
    /// Rows to measure; without it all
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds; a verdict needs at least two
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Proxies to compare with
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "nginx,haproxy,stunnel,socat")]
    peers: Vec<String>,
    /// Another binary of ours, such as the packaged one
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_ewsbridge"))]
    ours: PathBuf,
    /// Write the table to docs/performance.md; with --scale its section there, and the picture
    #[arg(long)]
    write: bool,
    /// In place of a comparison: how we grow with connections and with forwarders
    #[arg(long)]
    scale: bool,
    /// In place of a comparison: instructions of ours per unit of work, counted under valgrind
    #[arg(long, conflicts_with_all = ["scale", "write", "quick"])]
    instructions: bool,
    /// Little work in two rounds: shows that all of it works, its figures mean nothing
    #[arg(long, conflicts_with = "write")]
    quick: bool,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, first, listen, target] = &*arguments
        && first == floor::RELAY
    {
        return floor::run(listen, target).map(|()| ExitCode::SUCCESS);
    }
    let options = Options::parse();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    if options.scale {
        return scale::run(&options.ours, options.quick, options.write).map(|()| ExitCode::SUCCESS);
    }
    if options.instructions {
        return instructions::run(&options.ours, &options.rows).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let run = runtime.block_on(Run::new(&options))?;
    let (measured, failures) = runtime.block_on(run.measure())?;
    let names: Vec<&str> = run.others().map(Peer::name).collect();
    let machine = machine::facts(&run.peers, run.rounds)?;
    let text = format!("{machine}\n{}\n{}", report::table(&measured), report::everyone(&measured, &names));
    println!("\n{text}");
    for failure in &failures {
        println!("no figure: {failure}");
    }
    if !failures.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if options.write {
        report::write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md"), "table", &text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A whole comparison.
struct Run {
    material: Material,
    rows: Vec<&'static Row>,
    rounds: usize,
    sizes: Sizes,
    /// Ours first; all of them checked.
    peers: Vec<(Peer, Ability)>,
}

impl Run {
    async fn new(options: &Options) -> Result<Self> {
        let find = |name: &String| {
            let all: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            ROWS.iter().find(|row| row.name == name).with_context(|| format!("no row {name}; there are {all:?}"))
        };
        let rows = options.rows.iter().map(find).collect::<Result<Vec<_>>>()?;
        let rows = if rows.is_empty() { ROWS.iter().collect() } else { rows };
        let material = Material::new()?;
        let mut wanted = vec![Peer::Ours(options.ours.clone())];
        for name in &options.peers {
            wanted.push(Peer::OTHERS.into_iter().find(|peer| peer.name() == name).context(format!("no peer {name}"))?);
        }
        let mut peers = Vec::new();
        for peer in wanted {
            let version = peer.version()?;
            let ability = checks::check(&peer, &material).await.with_context(|| version.clone())?;
            eprintln!("{version}: verifies the target; {}", ability.text());
            peers.push((peer, ability));
        }
        let (rounds, sizes) = if options.quick { (2, Sizes::QUICK) } else { (options.rounds, Sizes::FULL) };
        ensure!(rounds > 0, "no rounds");
        Ok(Self { material, rows, rounds, sizes, peers })
    }

    fn others(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().map(|(peer, _)| peer).skip(1)
    }

    /// All rows, and what went wrong in those without figures.
    async fn measure(&self) -> Result<(Vec<Measured>, Vec<String>)> {
        let (mut measured, mut failures) = (Vec::new(), Vec::new());
        for row in &self.rows {
            match self.row(row).await {
                Ok(lines) => measured.extend(lines),
                Err(failure) => {
                    eprintln!("{}: {failure:#}", row.name);
                    failures.push(format!("{}: {failure:#}", row.name));
                }
            }
        }
        Ok((measured, failures))
    }

    /// One row in all its rounds: ours, each peer, the floor, and again.
    async fn row(&self, row: &'static Row) -> Result<Vec<Measured>> {
        let empty = || vec![Vec::new(); row.lines.len()];
        let mut figures: Vec<Vec<Vec<f64>>> = self.peers.iter().map(|_| empty()).collect();
        let mut floors = empty();
        let began = Instant::now();
        for _ in 0..self.rounds {
            for ((peer, _), figures) in self.peers.iter().zip(&mut figures) {
                self.add(row, peer, figures).await?;
            }
            if let Some(cryptography) = floor::cryptography(row)? {
                self.add(row, &Peer::Relay, &mut floors).await?;
                for (floor, more) in floors.iter_mut().zip(cryptography) {
                    *floor.last_mut().context("a figure of the relay")? += more;
                }
            }
        }
        eprintln!("{}: {:.0?}", row.name, began.elapsed());
        Ok(row
            .lines
            .iter()
            .enumerate()
            .map(|(nth, line)| measured(line, nth, &self.peers, &figures, &floors))
            .collect())
    }

    async fn add(&self, row: &Row, peer: &Peer, to: &mut [Vec<f64>]) -> Result<()> {
        let figures = work::once(row, peer, &self.material, &self.sizes).await;
        for (line, figure) in to.iter_mut().zip(figures.with_context(|| peer.name())?) {
            line.push(figure);
        }
        Ok(())
    }
}

/// The `nth` line of a row.
fn measured(
    line: &'static rows::Line,
    nth: usize,
    peers: &[(Peer, Ability)],
    figures: &[Vec<Vec<f64>>],
    floors: &[Vec<f64>],
) -> Measured {
    let mut all = peers.iter().zip(figures).map(|((peer, _), figures)| (peer.name(), figures[nth].clone()));
    let (_, ours) = all.next().unwrap_or_default();
    Measured { line, ours, others: all.collect(), floor: Some(floors[nth].clone()).filter(|floor| !floor.is_empty()) }
}
