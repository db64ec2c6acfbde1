//! What was measured, and what was promised.

#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
    missed: usize,
}

impl Table {
    /// Shows a row at once, and keeps it for the end.
    pub fn row(&mut self, what: String, measured: f64, bar: f64, unit: &str) {
        let verdict = if measured <= bar { "met" } else { "MISSED" };
        let row = format!("{what:<46} {measured:>9.1} {unit:<4} {bar:>9.1} {unit:<4} {verdict}");
        println!("{row}");
        self.rows.push(row);
        self.missed += usize::from(verdict == "MISSED");
    }

    pub fn print(&self) {
        println!("\n{:<46} {:>14} {:>14} verdict", "", "measured", "bar");
        for row in &self.rows {
            println!("{row}");
        }
    }

    /// Prints, and fails if a bar was missed.
    pub fn finish(&self) -> anyhow::Result<()> {
        self.print();
        anyhow::ensure!(self.missed == 0, "{} of {} bars are missed", self.missed, self.rows.len());
        Ok(())
    }
}

/// Sorts, too.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}
