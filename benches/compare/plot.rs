//! A picture of a few curves, written as SVG: no library is smaller than what is needed here.

use std::fmt::Write;

/// One diagram of the picture.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether each step to the right is a multiplication.
    pub(crate) is_logarithmic: bool,
    /// A line that the points should stay below, and what it means.
    pub(crate) limit: Option<(f64, &'static str)>,
}

const WIDTH: f64 = 470.0;
const HEIGHT: f64 = 320.0;
/// Around the field of a panel.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 25.0;
const TOP: f64 = 45.0;
const BOTTOM: f64 = 55.0;

/// The panels, two in a row.
pub(crate) fn picture(panels: &[Panel]) -> String {
    let (wide, high) = (WIDTH * 2.0, HEIGHT * panels.len().div_ceil(2) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (nth, panel) in panels.iter().enumerate() {
        let (x, y) = (WIDTH * (nth % 2) as f64, HEIGHT * (nth / 2) as f64);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">{}</g>", panel.drawn());
    }
    svg + "</svg>\n"
}

impl Panel {
    fn drawn(&self) -> String {
        let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let most = self.points.iter().map(|(x, _)| *x).fold(1.0, f64::max);
        let highest = self.points.iter().map(|(_, y)| *y).chain(self.limit.map(|(at, _)| at)).fold(0.0, f64::max);
        let (marks, top) = ticks(highest);
        let place = |x: f64| LEFT + wide * if self.is_logarithmic { x.log10() / most.log10() } else { x / most };
        let level = |y: f64| TOP + high * (1.0 - y / top);
        let middle = LEFT + wide / 2.0;
        let mut svg = format!(
            "\n<text x=\"{middle}\" y=\"25\" font-size=\"14\" font-weight=\"bold\" text-anchor=\"middle\">{}</text>",
            self.title
        );
        for mark in marks {
            let (y, right) = (level(mark), LEFT + wide);
            let _ = write!(
                svg,
                "\n<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 7.0,
                y + 4.0,
                number(mark)
            );
        }
        for mark in self.marks_across(most) {
            let (x, bottom) = (place(mark), TOP + high);
            let _ = write!(
                svg,
                "\n<path d=\"M{x:.1} {bottom}v5\" stroke=\"#222\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 19.0,
                number(mark)
            );
        }
        let (bottom, centre) = (TOP + high, TOP + high / 2.0);
        let _ = write!(
            svg,
            "\n<path d=\"M{LEFT} {TOP}V{bottom}h{wide}\" fill=\"none\" stroke=\"#222\"/>\
             \n<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             \n<text transform=\"translate(18 {centre}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            bottom + 42.0,
            self.across,
            self.up
        );
        if let Some((at, what)) = self.limit {
            let y = level(at);
            let _ = write!(
                svg,
                "\n<path d=\"M{LEFT} {y:.1}h{wide}\" stroke=\"#b3261e\" stroke-dasharray=\"6 4\"/>\
                 <text x=\"{}\" y=\"{:.1}\" fill=\"#b3261e\">{what}</text>",
                LEFT + 8.0,
                y + 15.0
            );
        }
        let path: Vec<String> = self.points.iter().map(|(x, y)| format!("{:.1},{:.1}", place(*x), level(*y))).collect();
        let _ = write!(
            svg,
            "\n<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in &self.points {
            let _ =
                write!(svg, "\n<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"#1f5fa8\"/>", place(*x), level(*y));
        }
        svg + "\n"
    }

    fn marks_across(&self, most: f64) -> Vec<f64> {
        if !self.is_logarithmic {
            return ticks(most).0.into_iter().filter(|mark| *mark <= most).collect();
        }
        let mut marks = vec![1.0];
        while marks[marks.len() - 1] * 10.0 <= most {
            marks.push(marks[marks.len() - 1] * 10.0);
        }
        marks
    }
}

/// Round numbers from 0 to the first one at or above `highest`, and that one.
fn ticks(highest: f64) -> (Vec<f64>, f64) {
    let rough = (highest / 5.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let mut marks = vec![0.0];
    while marks[marks.len() - 1] < highest * 0.999 {
        marks.push(step * marks.len() as f64);
    }
    let top = marks[marks.len() - 1];
    (marks, top)
}

/// With a comma before the last three digits of its whole part.
pub(crate) fn number(value: f64) -> String {
    let value = (value * 1e6).round() / 1e6;
    let (thousands, rest) = ((value / 1000.0).trunc(), value % 1000.0);
    if thousands > 0.0 { format!("{thousands},{rest:03}") } else { rest.to_string() }
}
