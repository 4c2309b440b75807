//! What the figures of one turn are to each other: only runs next to each other met the same machine.

use super::Figures;

/// Of runs with so many sessions, one of each for a turn.
pub struct Quotients {
    sessions: u32,
    rate_to_peer: Vec<f64>,
    rate_to_store: Vec<f64>,
    cpu_of_peer: Vec<f64>,
}

impl Quotients {
    pub fn new(sessions: u32) -> Self {
        Self { sessions, rate_to_peer: Vec::new(), rate_to_store: Vec::new(), cpu_of_peer: Vec::new() }
    }

    pub fn add(&mut self, ours: &Figures, peer: &Figures, store: &Figures) {
        self.rate_to_peer.push(ours.delivered_per_second / peer.delivered_per_second);
        self.rate_to_store.push(ours.delivered_per_second / store.delivered_per_second);
        self.cpu_of_peer.push(peer.cpu_ms_per_message / ours.cpu_ms_per_message);
    }

    pub fn print(all: &mut [Self]) {
        println!("\n{:<42} sessions  median  lowest  highest", "quotient");
        for Self { sessions, rate_to_peer, rate_to_store, cpu_of_peer } in all {
            line("delivered/s, posthouse to postfix", *sessions, rate_to_peer);
            line("delivered/s, posthouse to the store alone", *sessions, rate_to_store);
            line("cpu a message, postfix to posthouse", *sessions, cpu_of_peer);
        }
    }
}

fn line(what: &str, sessions: u32, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    if let (Some(lowest), Some(highest)) = (values.first(), values.last()) {
        println!("{what:<42} {sessions:>8}  {:>6.2}  {lowest:>6.2}  {highest:>7.2}", median(values));
    }
}

/// Of values in order, at least one.
fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
    }
}
