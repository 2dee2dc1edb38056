//! What came out, and is it what we promised?
//!
//! A value is the median of its rounds. A ratio is the median of the ratios of each round, not the
//! ratio of the medians: in one round both sides met the machine in the same mood.

use std::fmt;

pub const DIRECT: usize = 0;
pub const NGINX: usize = 1;
pub const FLOOR: usize = 2;
pub const GATEWAY: usize = 3;
pub const SUBJECTS: [&str; 4] = ["direct", "nginx", "floor", "gateway"];

/// What a line of the table is held against.
#[derive(Clone, Copy)]
pub enum Goal {
    /// The ratio is at least this.
    AtLeast(f64),
    /// The ratio is at most this.
    AtMost(f64),
    /// The value itself is below this.
    Below(f64),
    /// Nobody has promised anything.
    None,
}

/// One line: the values of each subject, a round each, and what the gateway's are compared with.
pub struct Line {
    pub title: String,
    pub values: [Vec<f64>; 4],
    /// The other side of the ratio; nginx if empty.
    pub base: Vec<f64>,
    pub goal: Goal,
}

impl Line {
    pub fn heading(title: &str) -> Line {
        Line { title: title.into(), values: Default::default(), base: Vec::new(), goal: Goal::None }
    }

    /// A line without a value has only its title to say.
    fn is_heading(&self) -> bool {
        self.values.iter().all(Vec::is_empty)
    }

    /// Whether the goal is reached; `None` where there is none, or nothing to hold against it.
    pub fn reached(&self) -> Option<bool> {
        let ratio = median(&self.ratios());
        match self.goal {
            Goal::AtLeast(least) => ratio.map(|ratio| ratio >= least),
            Goal::AtMost(most) => ratio.map(|ratio| ratio <= most),
            Goal::Below(bound) => median(&self.values[GATEWAY]).map(|value| value < bound),
            Goal::None => None,
        }
    }

    fn ratios(&self) -> Vec<f64> {
        let base = if self.base.is_empty() { &self.values[NGINX] } else { &self.base };
        self.values[GATEWAY]
            .iter()
            .zip(base)
            .filter(|(_, base)| **base > 0.0)
            .map(|(value, base)| value / base)
            .collect()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_heading() {
            return write!(formatter, "{}", self.title);
        }
        write!(formatter, "  {:<34}", self.title)?;
        for series in &self.values {
            write!(formatter, "{:>10}", median(series).map_or("–".into(), short))?;
        }
        let ratios = self.ratios();
        match median(&ratios) {
            Some(ratio) => {
                let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let high = ratios.iter().copied().fold(0.0, f64::max);
                write!(formatter, "{ratio:>10.2}   {:<12}", format!("{low:.2}–{high:.2}"))?;
            }
            None => write!(formatter, "{:>10}   {:<12}", "", "")?,
        }
        let verdict = match self.reached() {
            Some(true) => "PASS",
            Some(false) => "missed",
            None => return Ok(()),
        };
        write!(formatter, "{:<8}{verdict}", self.goal.to_string())
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtLeast(least) => write!(formatter, "≥ {least:.2}"),
            Goal::AtMost(most) => write!(formatter, "≤ {most:.2}"),
            Goal::Below(bound) => write!(formatter, "< {bound}"),
            Goal::None => Ok(()),
        }
    }
}

/// Prints the table; how many goals were missed.
pub fn print(lines: &[Line]) -> usize {
    let [direct, nginx, floor, gateway] = SUBJECTS;
    let heads = format!("{direct:>10}{nginx:>10}{floor:>10}{gateway:>10}");
    println!("{:<36}{heads}{:>10}   {:<12}goal", "", "ratio", "its rounds");
    for line in lines {
        println!("{}", line.to_string().trim_end());
    }
    let reached = lines.iter().filter_map(Line::reached);
    let (kept, missed): (Vec<bool>, Vec<bool>) = reached.partition(|reached| *reached);
    if !kept.is_empty() || !missed.is_empty() {
        println!("\n{} goals reached, {} missed", kept.len(), missed.len());
    }
    missed.len()
}

pub fn median(series: &[f64]) -> Option<f64> {
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().checked_sub(1)? / 2;
    let upper = sorted.len() / 2;
    Some(f64::midpoint(sorted[middle], sorted[upper]))
}

/// A value in at most four digits before the point, or with its thousands apart.
pub fn short(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate or a time, rounded for a reader"
    )]
    thousands(value.round() as u64)
}

pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}
