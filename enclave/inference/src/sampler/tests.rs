//! The sampler against its reference.
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use super::reference::{Fixed, Said, probabilities};
use super::scores::{Scratch, better, sane};
use super::*;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

fn request(change: impl FnOnce(&mut GenerateRequest)) -> GenerateRequest {
    let mut request = GenerateRequest::new(Vec::new());
    change(&mut request);
    request
}

fn sampler(request: &GenerateRequest, seed: u64, vocabulary: usize) -> Sampler {
    Sampler::new(request, seed, &[], vocabulary).unwrap()
}

fn draws(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<u32> {
    (0..n).map(|_| sampler.sample(logits).unwrap().token).collect()
}

/// Any numbers, the same each time.
struct Numbers(Draws);

impl Numbers {
    fn new(seed: u64) -> Self {
        Self(Draws::new(seed))
    }

    fn below(&mut self, n: usize) -> usize {
        (self.0.next() * n as f64) as usize
    }

    fn between(&mut self, low: f64, high: f64) -> f32 {
        (low + self.0.next() * (high - low)) as f32
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Scores of one of several shapes: flat, with ties, peaked, with infinities.
    fn logits(&mut self, n: usize) -> Vec<f32> {
        let shape = self.below(5);
        let mut logits: Vec<f32> = (0..n)
            .map(|_| match shape {
                0 => self.between(-1.0, 1.0),
                1 => self.below(8) as f32,
                2 => self.between(-30.0, 30.0),
                3 => self.between(0.001, 1.0).ln() * 4.0,
                _ => 2.5,
            })
            .collect();
        for bad in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
            let at = self.below(4 * n);
            if let Some(logit) = logits.get_mut(at) {
                *logit = bad;
            }
        }
        logits
    }

    fn request(&mut self) -> GenerateRequest {
        request(|r| {
            r.temperature = self.one_of(&[0.3, 0.7, 1.0, 1.0, 1.7, 2.0]);
            r.top_k = self.one_of(&[None, None, Some(1), Some(2), Some(20), Some(64), Some(1000)]);
            r.top_p = self.one_of(&[1.0, 1.0, 0.1, 0.5, 0.9, 0.95, 0.999]);
            r.min_p = self.one_of(&[0.0, 0.0, 0.0, 0.02, 0.1, 0.5, 1.0]);
        })
    }
}

/// The tokens that a seed could give, and the token of each of many draws, are those of the reference.
#[test]
fn the_distribution_is_that_of_the_reference() {
    let mut numbers = Numbers::new(1);
    let mut compared = 0;
    for round in 0..1500 {
        let n = if round % 100 == 0 { 20_000 } else { 1 + numbers.below(500) };
        let (request, logits) = (numbers.request(), numbers.logits(n));
        let said = Said { prompt: &[], answer: &[], allowed: None };
        let (wanted, close) = probabilities(&request, &said, &logits);
        let mut scratch = Scratch::default();
        scratch.index(&logits);
        let Some(best) = scratch.best(&logits) else { continue };
        if close {
            continue;
        }
        compared += 1;
        let shape = sampler(&request, 0, n).shape;
        let mut seen = vec![0.0; n];
        let (mut sum, steps) = (0.0, 400);
        let bounds: Vec<f64> = wanted
            .iter()
            .map(|p| {
                sum += p;
                sum
            })
            .collect();
        for step in 0..steps {
            let draw = (f64::from(step) + 0.5) / f64::from(steps);
            let token = choice::choose(&mut scratch, &logits, best, shape, draw).unwrap() as usize;
            assert!(wanted[token] > 0.0, "{token} is not in the set");
            let begin = bounds[token] - wanted[token];
            assert!(begin - 1e-5 <= draw && draw <= bounds[token] + 1e-5, "{begin} {draw} {}", bounds[token]);
            seen[token] += 1.0 / f64::from(steps);
        }
        for (id, p) in wanted.iter().enumerate() {
            assert!((seen[id] - p).abs() < 1.1 / f64::from(steps) + 2e-5, "{id}: {} {p}", seen[id]);
        }
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn the_filters_keep_what_the_reference_keeps() {
    let mut numbers = Numbers::new(2);
    let mut compared = [0; 3];
    for round in 0..3000 {
        let n = if round % 300 == 0 { 49_152 } else { 1 + numbers.below(400) };
        let (request, logits) = (numbers.request(), numbers.logits(n));
        let said = Said { prompt: &[], answer: &[], allowed: None };
        let (wanted, close) = probabilities(&request, &said, &logits);
        let mut scratch = Scratch::default();
        scratch.index(&logits);
        let Some(best) = scratch.best(&logits) else { continue };
        if close {
            continue;
        }
        let cut = choice::tests_cut(&mut scratch, &logits, best, sampler(&request, 0, n).shape);
        let kept =
            |id: usize| sane(logits[id]).is_finite() && better(&(sane(logits[id]), id as u32), &cut).is_le();
        // What has no weight in f32 is not kept, and nobody could tell.
        assert!((0..n).all(|id| kept(id) == (wanted[id] > 0.0) || wanted[id] < 1e-30), "{round}");
        compared[0] += usize::from(request.top_k.is_some_and(|k| k < n));
        compared[1] += usize::from(request.top_p < 1.0);
        compared[2] += usize::from(request.min_p > 0.0);
    }
    assert!(compared.iter().all(|n| *n > 500), "{compared:?}");
}

#[test]
fn bias_and_penalties_are_those_of_the_reference() {
    let mut numbers = Numbers::new(3);
    for round in 0..300 {
        let n = 2 + numbers.below(200);
        let prompt: Vec<u32> = (0..numbers.below(20)).map(|_| numbers.below(n) as u32).collect();
        let request = request(|r| {
            r.temperature = numbers.one_of(&[0.0, 0.0, 0.8]);
            r.top_k = numbers.one_of(&[None, Some(3)]);
            r.repetition_penalty = numbers.one_of(&[1.0, 0.8, 1.3, 2.0]);
            r.presence_penalty = numbers.one_of(&[0.0, -2.0, 0.5, 2.0]);
            r.frequency_penalty = numbers.one_of(&[0.0, -0.5, 0.25, 2.0]);
            r.logit_bias.extend((0..numbers.below(3)).map(|i| (i as u32, numbers.between(-5.0, 5.0))));
        });
        twenty_tokens(&mut numbers, &request, &prompt, n, round);
    }
}

/// Twenty tokens, each with other scores, each held against the reference.
fn twenty_tokens(numbers: &mut Numbers, request: &GenerateRequest, prompt: &[u32], n: usize, seed: u64) {
    let mut sampler = Sampler::new(request, seed, prompt, n).unwrap();
    let mut draws = Draws::new(seed);
    let mut answer = Vec::new();
    for _ in 0..20 {
        let logits: Vec<f32> = (0..n).map(|_| numbers.between(-4.0, 4.0)).collect();
        let (wanted, _) = probabilities(request, &Said { prompt, answer: &answer, allowed: None }, &logits);
        let (draw, token) = (draws.next(), sampler.sample(&logits).unwrap().token);
        let begin: f64 = wanted[..token as usize].iter().sum();
        let p = wanted[token as usize];
        assert!(p > 0.0 && begin - 1e-4 <= draw && draw <= begin + p + 1e-4, "{begin} {p} {draw}");
        answer.push(token);
    }
}

#[test]
fn a_mask_is_never_violated_and_hears_every_token() {
    let mut numbers = Numbers::new(4);
    for seed in 0..200 {
        let n = 1 + numbers.below(300);
        let allowed: Vec<u32> = (0..1 + numbers.below(5)).map(|_| numbers.below(n) as u32).collect();
        let mut request = numbers.request();
        request.temperature = numbers.one_of(&[0.0, 1.0, 2.0]);
        // What is not allowed is wanted most, by scores and by bias.
        let favourite = (0..n as u32).find(|id| !allowed.contains(id));
        request.logit_bias.extend(favourite.map(|id| (id, 100.0)));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mask = Fixed { allowed: allowed.clone(), heard: Arc::clone(&heard) };
        let mut sampler = sampler(&request, seed, n).with_mask(Some(Box::new(mask)));
        let chosen: Vec<u32> = (0..20)
            .map(|_| {
                let logits: Vec<f32> = (0..n).map(|_| numbers.between(-9.0, 9.0)).collect();
                sampler.sample(&logits).unwrap().token
            })
            .collect();
        assert!(chosen.iter().all(|token| allowed.contains(token)));
        assert_eq!(*heard.lock().unwrap(), chosen);
    }
}

#[test]
fn a_mask_and_penalties_give_the_distribution_of_the_reference() {
    let request = request(|r| (r.temperature, r.repetition_penalty) = (0.9, 1.5));
    let logits = [1.0, 2.0, 3.0, 4.0, -1.0];
    let allowed = [0, 1, 4];
    let said = Said { prompt: &[1, 4], answer: &[], allowed: Some(&allowed) };
    let (wanted, _) = probabilities(&request, &said, &logits);
    let mut counts = [0.0; 5];
    let n = 20_000;
    for seed in 0..n {
        let mask = Fixed { allowed: allowed.to_vec(), heard: Arc::default() };
        let sampler = Sampler::new(&request, seed, &[1, 4], 5).unwrap();
        counts[sampler.with_mask(Some(Box::new(mask))).sample(&logits).unwrap().token as usize] +=
            1.0 / n as f64;
    }
    for (seen, wanted) in counts.iter().zip(wanted) {
        assert!((seen - wanted).abs() < 0.012, "{seen} {wanted}");
    }
}

#[test]
fn a_mask_that_allows_nothing_is_a_failure_with_a_name() {
    let of = |allowed: Vec<u32>, temperature| {
        let mask = Fixed { allowed, heard: Arc::default() };
        let request = request(|r| r.temperature = temperature);
        let mut sampler = sampler(&request, 1, 3).with_mask(Some(Box::new(mask)));
        sampler.sample(&[1.0, 2.0, f32::NAN]).map(|sampled| sampled.token)
    };
    for temperature in [0.0, 1.0] {
        assert!(matches!(of(vec![], temperature), Err(Error::NoAllowedToken)));
        assert!(matches!(of(vec![2, 3, u32::MAX], temperature), Err(Error::NoAllowedToken)), "no score");
        assert!(matches!(of(vec![0, 2], temperature), Ok(0)));
    }
}

#[test]
fn zero_temperature_is_greedy_and_ties_go_to_the_first() {
    let mut greedy = sampler(&request(|r| (r.temperature, r.top_k) = (0.0, Some(2))), 1, 4);
    assert_eq!(greedy.sample(&[0.0, 3.0, 3.0, f32::NAN]).unwrap().token, 1);
    assert!(matches!(
        greedy.sample(&[f32::NAN, f32::NEG_INFINITY, f32::INFINITY, f32::NAN]),
        Err(Error::Compute(_))
    ));
    assert!(matches!(greedy.sample(&[1.0; 3]), Err(Error::Compute(_))), "not the vocabulary");
    assert_eq!(greedy.sample(&[0.0, 1.0, 2.0, 1.0, 9.0]).unwrap().token, 2, "behind the vocabulary");
    assert!(sampler(&request(|_| ()), 1, 0).sample(&[]).is_err());
}

#[test]
fn greedy_with_penalties_moves_on() {
    let logits = [3.0, 2.5, 2.25, -1.0];
    let greedy = |change: fn(&mut GenerateRequest)| {
        let request = request(|r| {
            r.temperature = 0.0;
            change(r);
        });
        draws(&mut Sampler::new(&request, 1, &[0, 3], 4).unwrap(), &logits, 6)
    };
    assert_eq!(greedy(|_| ()), [0, 0, 0, 0, 0, 0]);
    assert_eq!(greedy(|r| r.presence_penalty = 1.0), [0, 1, 2, 0, 0, 0], "once for each token");
    assert_eq!(greedy(|r| r.frequency_penalty = 0.6), [0, 1, 0, 2, 1, 0], "the more often the more");
    assert_eq!(greedy(|r| r.repetition_penalty = 1.25), [1, 0, 0, 0, 0, 0], "the prompt counts");
    assert_eq!(greedy(|r| r.logit_bias.push((3, 100.0))), [3; 6]);
    assert_eq!(greedy(|r| r.logit_bias.push((0, -100.0))), [1; 6]);
}

#[test]
fn bias_of_an_id_that_is_no_token_is_refused() {
    let with = |id| request(|r| r.logit_bias.push((id, 1.0)));
    assert!(Sampler::new(&with(9), 1, &[], 10).is_ok());
    for id in [10, u32::MAX] {
        let refused = Sampler::new(&with(id), 1, &[], 10).err();
        assert!(matches!(refused, Some(SubmitError::BadParameter { name: "logit_bias", .. })));
    }
}

#[test]
fn the_seed_and_the_place_decide() {
    let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
    let request = request(|r| (r.temperature, r.top_p) = (0.9, 0.95));
    let run = |seed| draws(&mut sampler(&request, seed, 100), &logits, 50);
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    assert!(run(7).iter().collect::<BTreeSet<_>>().len() > 20);
}

/// Noted once: another number here means that seeds give other answers than before.
#[test]
fn what_a_seed_gives_never_changes() {
    let logits: Vec<f32> = (0..1000_u16).map(|i| f32::from(i * 37 % 101) / 8.0).collect();
    let request = request(|r| (r.top_p, r.min_p, r.top_k) = (0.98, 0.001, Some(200)));
    assert_eq!(draws(&mut sampler(&request, 42, 1000), &logits, 8), NOTED);
}
const NOTED: [u32; 8] = [827, 464, 898, 917, 775, 450, 917, 535];

#[test]
fn very_low_temperatures_are_greedy_and_not_a_division_by_zero() {
    for temperature in [0.01, 1e-20, f32::MIN_POSITIVE, 1e-45] {
        let tokens =
            draws(&mut sampler(&request(|r| r.temperature = temperature), 3, 3), &[1.0, 2.5, -1.0], 50);
        assert!(tokens.iter().all(|token| *token == 1), "{temperature}");
    }
}

#[test]
fn logprobs_are_those_of_the_model_whatever_the_request_does() {
    let logits = [5f32.ln(), 3f32.ln(), 1f32.ln(), 1f32.ln(), f32::NAN];
    let request = request(|r| {
        (r.logprobs, r.top_logprobs, r.temperature, r.repetition_penalty) = (true, 3, 0.0, 1.9);
        r.logit_bias.extend([(3, 100.0)]);
    });
    let sampled = Sampler::new(&request, 1, &[3], 5).unwrap().sample(&logits).unwrap();
    let logprobs = sampled.logprobs.unwrap();
    let close = |a: f32, b: f64| (f64::from(a) - b.ln()).abs() < 1e-6;
    assert_eq!(sampled.token, 3);
    assert!(close(*logprobs.chosen, 0.1));
    let top: Vec<u32> = logprobs.top.iter().map(|(_, token)| *token).collect();
    assert_eq!(top, [0, 1, 2], "of equals the lowest id");
    assert!(logprobs.top.iter().zip([0.5, 0.3, 0.1]).all(|((logprob, _), p)| close(*logprob, p)));
}

#[test]
fn logprobs_of_a_vocabulary_sum_to_one() {
    let mut numbers = Numbers::new(5);
    for _ in 0..50 {
        let n = 1 + numbers.below(300);
        let logits: Vec<f32> = (0..n).map(|_| numbers.between(-20.0, 20.0)).collect();
        let request = request(|r| (r.logprobs, r.top_logprobs) = (true, n));
        let logprobs = sampler(&request, 1, n).sample(&logits).unwrap().logprobs.unwrap();
        assert_eq!(logprobs.top.len(), n);
        let total: f64 = logprobs.top.iter().map(|(logprob, _)| f64::from(*logprob).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        assert!(logprobs.top.is_sorted_by(|a, b| a.0 >= b.0) && *logprobs.chosen <= 0.0);
    }
    let none = sampler(&request(|_| ()), 1, 2).sample(&[1.0, 2.0]).unwrap();
    assert!(none.logprobs.is_none());
}
