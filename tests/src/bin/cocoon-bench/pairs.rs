//! Measures two things alternately: a machine that is busy or warm is so for both, and their ratio hardly notices.

/// The same quantity of the baseline and of what is measured, pair by pair.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    baseline: Vec<f64>,
    measured: Vec<f64>,
}

/// What many values have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Pairs {
    /// Of measured / baseline, pair by pair.
    pub fn ratio(&self) -> Spread {
        Spread::of(self.measured.iter().zip(&self.baseline).map(|(measured, baseline)| measured / baseline))
    }

    /// Of the baseline alone.
    pub fn baseline(&self) -> Spread {
        Spread::of(self.baseline.iter().copied())
    }

    /// Of what is measured alone.
    pub fn measured(&self) -> Spread {
        Spread::of(self.measured.iter().copied())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.measured.len()
    }
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (last, middle) = (sorted.len() - 1, sorted.len() / 2);
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { median, min: sorted[0], max: sorted[last] }
    }
}

/// Takes `pairs` samples of each, baseline first, after one of each that does not count.
///
/// A sample is `N` quantities, for instance wall time and CPU time.
///
/// # Errors
/// The first error of a sample.
pub fn alternate<const N: usize>(
    pairs: usize,
    mut baseline: impl FnMut() -> anyhow::Result<[f64; N]>,
    mut measured: impl FnMut() -> anyhow::Result<[f64; N]>,
) -> anyhow::Result<[Pairs; N]> {
    baseline()?;
    measured()?;
    let mut all: [Pairs; N] = std::array::from_fn(|_| Pairs::default());
    for _ in 0..pairs {
        let pair = baseline()?.into_iter().zip(measured()?);
        for (quantity, (baseline, measured)) in all.iter_mut().zip(pair) {
            quantity.baseline.push(baseline);
            quantity.measured.push(measured);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_alternate_and_the_first_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let mut values = [9.0, 2.0, 4.0, 10.0].into_iter();
        let baseline = || {
            order.borrow_mut().push('A');
            Ok([values.next().unwrap()])
        };
        let measured = || {
            order.borrow_mut().push('B');
            Ok([20.0])
        };
        let [pairs] = alternate(3, baseline, measured).unwrap();
        assert_eq!(order.into_inner(), "ABABABAB");
        assert_eq!(pairs.len(), 3);
        assert_eq!(pairs.ratio(), Spread { median: 5.0, min: 2.0, max: 10.0 });
        assert_eq!(pairs.baseline().median, 4.0);
        assert_eq!(pairs.measured().max, 20.0);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Spread { median: 3.0, min: 1.0, max: 9.0 });
    }
}
