//! The table: medians over the rounds, ratios of the same round, and what they say about each row.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::rows::{FLOOR, Line, Wanted};

/// The figures of one line of the table: each peer's, by round.
pub(crate) struct Measured {
    pub(crate) line: &'static Line,
    pub(crate) ours: Vec<f64>,
    /// Name and figures of each other proxy.
    pub(crate) others: Vec<(&'static str, Vec<f64>)>,
    /// None: such a row has no floor.
    pub(crate) floor: Option<Vec<f64>>,
}

/// A peer that varies more than this between rounds tells nothing.
const STEADY: f64 = 0.15;

/// What a line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Met,
    MetByFloor,
    NotMet,
    /// The best peer varies too much.
    Unsteady,
    /// One round tells nothing.
    TooFew,
}

impl Measured {
    /// The other proxy with the least median.
    fn best(&self) -> Option<&(&'static str, Vec<f64>)> {
        self.others.iter().min_by(|one, other| median(&one.1).total_cmp(&median(&other.1)))
    }

    fn verdict(&self) -> Verdict {
        let floor = self.floor.as_ref().map(|floor| median(&ratios(&self.ours, floor)));
        match (self.line.wanted, self.best()) {
            _ if self.ours.len() < 2 => Verdict::TooFew,
            // Against a fixed figure nobody else matters.
            (Wanted::AtMost(most), _) if median(&self.ours) <= most => Verdict::Met,
            (Wanted::AtMost(_), _) => Verdict::NotMet,
            (Wanted::Ratio(_), Some((_, theirs))) if spread(theirs) > STEADY => Verdict::Unsteady,
            (Wanted::Ratio(most), Some((_, theirs))) if median(&ratios(&self.ours, theirs)) <= most => Verdict::Met,
            _ if floor.is_some_and(|times| times <= FLOOR) => Verdict::MetByFloor,
            (Wanted::Ratio(_), Some(_)) => Verdict::NotMet,
            (Wanted::Ratio(_), None) => Verdict::TooFew,
        }
    }

    fn row(&self) -> String {
        let best = self.best().map(|(name, theirs)| (*name, theirs, ratios(&self.ours, theirs)));
        let (peer, ratio) = best.as_ref().map_or(("–".to_owned(), "–".to_owned()), |(name, theirs, ratios)| {
            (format!("{name} {}", number(median(theirs))), range(ratios))
        });
        let floor = self.floor.as_ref().map_or("–".to_owned(), |floor| {
            format!("{:.2} of {}", median(&ratios(&self.ours, floor)), number(median(floor)))
        });
        let wanted = match self.line.wanted {
            Wanted::Ratio(most) => format!("≤ {most} × peer"),
            Wanted::AtMost(most) => format!("≤ {most} {}", self.line.unit),
        };
        let verdict = match self.verdict() {
            Verdict::Met => "met".to_owned(),
            Verdict::MetByFloor => format!("met: ≤ {FLOOR:.2} × floor"),
            Verdict::NotMet => "not met".to_owned(),
            Verdict::Unsteady => {
                let by = best.as_ref().map_or(0.0, |(_, theirs, _)| spread(theirs) * 100.0);
                format!("no verdict: the peer varies by {by:.0} %")
            }
            Verdict::TooFew => "no verdict: too few figures".to_owned(),
        };
        let (what, unit, ours) = (self.line.what, self.line.unit, number(median(&self.ours)));
        format!("| {what} | {unit} | {ours} | {peer} | {ratio} | {floor} | {wanted} | {verdict} |")
    }
}

/// The table, Markdown.
pub(crate) fn table(all: &[Measured]) -> String {
    let mut text = "| work | unit | ours | best peer | ours / best peer (min–max) | × floor | wanted | verdict |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for measured in all {
        let _ = writeln!(text, "{}", measured.row());
    }
    text
}

/// What every proxy needed, Markdown.
pub(crate) fn everyone(all: &[Measured], names: &[&str]) -> String {
    let head: String = names.iter().map(|name| format!(" {name} |")).collect();
    let mut text = format!("| work | unit | ours |{head} floor |\n|---|---|---|{}---|\n", "---|".repeat(names.len()));
    for Measured { line, ours, others, floor } in all {
        let of = |figures: Option<&Vec<f64>>| figures.map_or("–".to_owned(), |figures| range(figures));
        let theirs = names.iter().map(|name| of(others.iter().find(|(other, _)| other == name).map(|(_, them)| them)));
        let theirs: String = theirs.map(|cell| format!(" {cell} |")).collect();
        let _ = writeln!(text, "| {} | {} | {} |{theirs} {} |", line.what, line.unit, range(ours), of(floor.as_ref()));
    }
    text
}

/// Puts a text between this document's two comments of that name; the rest stays.
///
/// # Errors
/// If the document can't be read or written, or has no such comments.
pub(crate) fn write(document: &Path, name: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(document).with_context(|| document.display().to_string())?;
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->\n"));
    let (before, rest) = old.split_once(&begin).with_context(|| format!("no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end}"))?;
    fs::write(document, format!("{before}{begin}\n{text}\n{end}{after}"))?;
    Ok(())
}

/// Each round's own ratio: a machine that was slow for a while was slow for both.
fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| if ours == theirs { 1.0 } else { ours / theirs }).collect()
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(figures: &[f64]) -> f64 {
    let sorted = sorted(figures);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// By how much of the median the rounds differ.
fn spread(figures: &[f64]) -> f64 {
    let sorted = sorted(figures);
    (sorted[sorted.len() - 1] - sorted[0]) / median(figures)
}

/// Median, least and most; nothing where there is no ratio, to a peer that needs nothing.
fn range(figures: &[f64]) -> String {
    let sorted = sorted(figures);
    if !sorted.iter().all(|figure| figure.is_finite()) {
        return "–".to_owned();
    }
    let [median, least, most] = [median(figures), sorted[0], sorted[sorted.len() - 1]].map(number);
    if least == most { median } else { format!("{median} ({least}–{most})") }
}

/// Three digits that count.
fn number(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        1.0.. => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}
