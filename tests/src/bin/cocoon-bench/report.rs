//! The table and the JSON.

use serde_json::{Value, json};

use crate::pairs::{Pairs, Spread};

/// Which ratios are good ones.
#[derive(Clone, Copy, Debug)]
pub enum Better {
    /// Time.
    Lower,
    /// Throughput.
    Higher,
}

impl Better {
    fn word(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }
}

/// One thing that was measured.
#[derive(Debug)]
pub struct Row {
    /// What.
    pub what: String,
    /// Against what.
    pub baseline: String,
    /// Which ratios are good ones.
    pub better: Better,
    /// Of the absolute values.
    pub unit: &'static str,
    /// The numbers.
    pub pairs: Pairs,
    /// What else there is to say; may be empty.
    pub note: String,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "baseline": self.baseline,
            "better": self.better.word(),
            "pairs": self.pairs.len(),
            "ratio": spread_json(self.pairs.ratio()),
            "unit": self.unit,
            "measured_absolute": spread_json(self.pairs.measured()),
            "baseline_absolute": spread_json(self.pairs.baseline()),
            "note": self.note,
        })
    }

    fn cells(&self) -> [String; 6] {
        let Spread { median, min, max } = self.pairs.ratio();
        let note = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
        let (measured, baseline) = (self.pairs.measured().median, self.pairs.baseline().median);
        [
            format!("{}{note}", self.what),
            self.baseline.clone(),
            format!("**{}** ({}..{})", short(median), short(min), short(max)),
            self.better.word().to_owned(),
            format!("{} : {} {}", short(measured), short(baseline), self.unit),
            self.pairs.len().to_string(),
        ]
    }
}

fn spread_json(spread: Spread) -> Value {
    json!({ "median": spread.median, "min": spread.min, "max": spread.max })
}

/// Three digits that count: more would be noise.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

const HEADINGS: [&str; 6] =
    ["What", "Baseline", "Ratio (min..max)", "Better", "Absolute, for context", "Pairs"];

/// Everything that one run found.
#[derive(Debug)]
pub struct Report {
    machine: Value,
    rows: Vec<Row>,
    skipped: Vec<(&'static str, &'static str)>,
}

impl Report {
    /// Nothing yet.
    pub fn new(machine: Value) -> Self {
        Self { machine, rows: Vec::new(), skipped: Vec::new() }
    }

    /// Adds what a group found.
    pub fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// Says why a group is missing.
    pub fn skip(&mut self, group: &'static str, why: &'static str) {
        self.skipped.push((group, why));
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let skipped: Vec<Value> =
            self.skipped.iter().map(|(group, why)| json!({ "group": group, "why": why })).collect();
        let results: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "machine": self.machine, "results": results, "skipped": skipped })
    }

    /// For people: Markdown that is readable as it is.
    pub fn table(&self) -> String {
        let about = |name: &str| self.machine[name].as_str().unwrap_or_default();
        let mut text = format!(
            "{}, family {} model {}, {} cores, {}; Linux {}; Cocoon {}\nRatio: measured / baseline, median of pairs\n\n",
            about("cpu"),
            about("cpu_family"),
            about("cpu_model"),
            self.machine["cores"],
            about("cpu_features"),
            about("kernel"),
            about("cocoon"),
        );
        let rows: Vec<[String; 6]> = self.rows.iter().map(Row::cells).collect();
        let width = |column: usize| {
            let longest = rows.iter().map(|cells| cells[column].len()).max();
            longest.unwrap_or_default().max(HEADINGS[column].len())
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        text += &line(&HEADINGS.map(str::to_owned), &widths);
        text += &line(&widths.map(|width| "-".repeat(width)), &widths);
        for cells in &rows {
            text += &line(cells, &widths);
        }
        for (group, why) in &self.skipped {
            text += &format!("\nskipped {group}: {why}\n");
        }
        text
    }
}

fn line(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    format!("| {} |\n", padded.join(" | "))
}
