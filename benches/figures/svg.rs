//! Draws bars of ratios on a logarithmic axis, so that twice as fast and half as
//! fast are equally long.
//!
//! Colours follow the reader's choice of light or dark, and are told apart
//! without seeing red or green.

use std::fmt::Write;

use crate::environment::Fact;
use crate::short;

/// Units across; the text is 13 of them high.
const WIDTH: f64 = 960.0;
/// Where labels end.
const LABEL_END: f64 = 300.0;
/// Where the axis begins.
const PLOT_START: f64 = 312.0;
/// How long it is.
const PLOT_WIDTH: f64 = 400.0;
/// Where values begin.
const VALUE_START: f64 = 726.0;
/// The room at the sides.
const MARGIN: f64 = 24.0;
/// From a bar to the next.
const ROW: f64 = 22.0;
/// How thick a bar is.
const BAR: f64 = 14.0;
/// Above the bars of a panel: its title, its note, its axis.
const HEAD: f64 = 84.0;
/// Below them.
const FOOT: f64 = 26.0;
/// From a line of the caption to the next.
const LINE: f64 = 18.0;
/// Characters that one line of the caption has room for.
const LINE_CHARS: usize = 130;
/// Ticks of an axis at the most, about.
const TICKS: i32 = 8;

/// The colours, and how text is set.
const STYLE: &str = "
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:17px;font-weight:600}.minor{fill:#59636e;font-size:12px}
.end{text-anchor:end}.middle{text-anchor:middle}.ratio{font-weight:600}
.page{fill:#fff}.grid{stroke:#d1d9e0}.one{stroke:#59636e;stroke-width:1.5}
.faster{fill:#0969da}.slower{fill:#bc4c00}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.minor{fill:#9198a1}.page{fill:#0d1117}
.grid{stroke:#3d444d}.one{stroke:#9198a1}.faster{fill:#4493f8}.slower{fill:#db6d28}}
";

/// One ratio.
pub(crate) struct Bar {
    /// What was measured.
    pub(crate) label: String,
    /// How many times as fast kvs is.
    pub(crate) ratio: f64,
    /// What the ratio is of.
    pub(crate) value: String,
}

/// Bars with one axis.
pub(crate) struct Panel {
    /// Who is compared in what.
    pub(crate) title: &'static str,
    /// How labels and values are to be read.
    pub(crate) note: &'static str,
    /// The bars; without any the panel is left out.
    pub(crate) bars: Vec<Bar>,
}

impl Panel {
    /// How high it is.
    fn height(&self) -> f64 {
        HEAD + ROW * self.bars.len() as f64 + FOOT
    }
}

/// An axis from one power of two to another.
struct Axis {
    /// The exponent at its start.
    low: i32,
    /// The exponent at its end.
    high: i32,
}

impl Axis {
    /// One that has room for all ratios, and for twice and half as fast.
    fn of(bars: &[Bar]) -> Axis {
        let logs = || bars.iter().map(|bar| bar.ratio.log2());
        let low = logs().fold(-1.0, f64::min).floor() as i32;
        let high = logs().fold(1.0, f64::max).ceil() as i32;
        Axis { low, high }
    }

    /// Where a ratio is on it.
    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio.log2() - f64::from(self.low)) / f64::from(self.high - self.low);
        PLOT_START + PLOT_WIDTH * share
    }

    /// The exponents that are marked: 0, and others at one distance.
    fn ticks(&self) -> impl Iterator<Item = i32> {
        let step = ((self.high - self.low) / TICKS + 1).max(1);
        (self.low..=self.high).filter(move |exponent| exponent % step == 0)
    }
}

/// A ratio of two to the power of `exponent` in words.
fn tick_text(exponent: i32) -> String {
    let power = 1_u64 << exponent.unsigned_abs().min(63);
    if exponent < 0 { format!("1/{power} ×") } else { format!("{power} ×") }
}

/// Text that stands in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A drawing that grows.
#[derive(Default)]
struct Drawing(String);

impl Drawing {
    /// Adds text.
    fn text(&mut self, (x, y): (f64, f64), class: &str, text: &str) {
        let text = escaped(text);
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
    }

    /// Adds a rectangle.
    fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        ));
    }

    /// Adds an upright line.
    fn upright(&mut self, x: f64, (top, bottom): (f64, f64), class: &str) {
        self.add(format_args!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" class=\"{class}\"/>"
        ));
    }

    /// Adds an element, on a line of its own.
    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    /// Adds a panel, from `top` on.
    fn panel(&mut self, panel: &Panel, top: f64) {
        let axis = Axis::of(&panel.bars);
        self.text((MARGIN, top + 24.0), "title", panel.title);
        self.text((MARGIN, top + 44.0), "minor", panel.note);
        self.legend(top + 44.0);
        self.axis(&axis, top + HEAD - 6.0, top + panel.height() - FOOT);
        for (nth, bar) in panel.bars.iter().enumerate() {
            self.bar(bar, &axis, top + HEAD + ROW * nth as f64);
        }
    }

    /// Adds what the colours mean.
    fn legend(&mut self, y: f64) {
        for (x, class, text) in [
            (PLOT_START + 260.0, "faster", "kvs is faster"),
            (VALUE_START, "slower", "kvs is slower"),
        ] {
            self.rectangle((x, y - 10.0), (11.0, 11.0), class);
            self.text((x + 17.0, y), "minor", text);
        }
    }

    /// Adds an axis: its lines, and its ticks above them.
    fn axis(&mut self, axis: &Axis, top: f64, bottom: f64) {
        for exponent in axis.ticks() {
            let x = axis.x(f64::from(exponent).exp2());
            let class = if exponent == 0 { "one" } else { "grid" };
            self.upright(x, (top, bottom), class);
            self.text((x, top - 5.0), "minor middle", &tick_text(exponent));
        }
    }

    /// Adds a bar from 1 to its ratio, its label and its value.
    fn bar(&mut self, bar: &Bar, axis: &Axis, top: f64) {
        let (one, end) = (axis.x(1.0), axis.x(bar.ratio));
        let class = if bar.ratio >= 1.0 { "faster" } else { "slower" };
        let text_y = top + BAR - 2.0;
        self.rectangle((one.min(end), top), ((end - one).abs().max(1.0), BAR), class);
        self.text((LABEL_END, text_y), "end", &bar.label);
        self.text((VALUE_START, text_y), "ratio", &format!("{} ×", short(bar.ratio)));
        self.text((VALUE_START + 56.0, text_y), "minor", &bar.value);
    }
}

/// The lines of the caption.
fn caption(facts: &[Fact]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (name, value) in facts {
        let fact = format!("{name}: {value}");
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = fact,
            Some(line) if line.len() + fact.len() < LINE_CHARS => *line += &format!(" · {fact}"),
            _ => lines.push(fact),
        }
    }
    lines
}

/// The whole picture.
pub(crate) fn draw(panels: &[Panel], facts: &[Fact]) -> String {
    let panels = || panels.iter().filter(|panel| !panel.bars.is_empty());
    let caption = caption(facts);
    let height = panels().map(Panel::height).sum::<f64>() + LINE * caption.len() as f64 + FOOT;
    let mut drawing = Drawing::default();
    drawing.add(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>How many times as fast kvs is as Redis and sled</title>\n<style>{STYLE}</style>"
    ));
    drawing.rectangle((0.0, 0.0), (WIDTH, height), "page");
    let mut top = 8.0;
    for panel in panels() {
        drawing.panel(panel, top);
        top += panel.height();
    }
    for (nth, line) in caption.iter().enumerate() {
        drawing.text((MARGIN, top + LINE * nth as f64), "minor", line);
    }
    drawing.add(format_args!("</svg>"));
    drawing.0
}
