//! Draws horizontal bars as SVG. The colours follow the reader's choice of light
//! or dark, and differ without red and green.

/// A bar.
pub(crate) struct Bar {
    /// The text at its left.
    pub(crate) label: String,
    /// Its length, in any unit.
    pub(crate) value: f64,
    /// The text at its right.
    pub(crate) text: String,
    /// True if the bar is one of kvs. It has another colour then, and a gap above.
    pub(crate) is_kvs: bool,
}

/// The width of the picture.
const WIDTH: f64 = 720.0;
/// The x coordinate of the bars.
const LEFT: f64 = 240.0;
/// The length of the longest bar.
const LONGEST: f64 = 380.0;
/// The height of a bar with its margin.
const ROW: f64 = 20.0;
/// The gap above each bar of kvs.
const GAP: f64 = 12.0;
/// The y coordinate of the title.
const TITLE: f64 = 30.0;

/// Colours and fonts.
const STYLE: &str = "
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.label{text-anchor:end}
.page{fill:#fff}.kvs{fill:#0969da}.other{fill:#8c959f}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.page{fill:#0d1117}.kvs{fill:#4493f8}}
";

/// A bar with its texts, below `top`.
fn bar(bar: &Bar, top: f64, longest: f64) -> String {
    let Bar { label, text, .. } = bar;
    let class = if bar.is_kvs { "kvs" } else { "other" };
    let (width, height) = (LONGEST * bar.value / longest, ROW - 4.0);
    let (label_end, text_start, baseline) = (LEFT - 10.0, LEFT + width + 8.0, top + ROW - 8.0);
    format!(
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\" class=\"{class}\"/>\n\
         <text x=\"{label_end}\" y=\"{baseline}\" class=\"label\">{label}</text>\n\
         <text x=\"{text_start:.1}\" y=\"{baseline}\">{text}</text>\n"
    )
}

/// The picture. Titles and texts contain no character that XML reserves.
pub(crate) fn draw(title: &str, bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let mut top = TITLE;
    let mut drawn = String::new();
    for each in bars {
        top += if each.is_kvs { GAP } else { 0.0 };
        drawn += &bar(each, top, longest);
        top += ROW;
    }
    let height = top + GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" class=\"page\"/>\n\
         <text x=\"{GAP}\" y=\"{TITLE}\" class=\"title\">{title}</text>\n{drawn}</svg>\n"
    )
}
