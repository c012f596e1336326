//! Padded answers: cells of constant size at a constant rate, from before anything is known of the answer until a whole second after
//! it. What a host sees is for how many seconds, not what status, how many tokens, or when each of them came. Of many vectors
//! it sees more: docs/protocol.md, Padding.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cocoon_attestation::receipt::SignedReceipt;
use cocoon_attestation::wire::{CELL_CONTENT, CELL_LEN, Cell, PAD_HEADER, encode_cell};
use http::response::Parts;
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use serde_json::json;

use super::account::{Account, Tally};
use super::respond::{Body, Room};
use crate::node::Node;
use crate::ticks::Ticks;

/// Ticks of a second. An answer has a multiple of so many.
const SECOND: u32 = 20;
/// Cells of a tick in answers with vectors.
const MANY: usize = 16;

/// How much is sent in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// A cell.
    Text,
    /// 16 cells; what is more than a second of them comes at once, in a power of two of cells.
    Vectors,
}

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Begins to answer at once, whatever the answer will be.
pub(super) fn padded(
    answer: impl Future<Output = Response<Body>> + Send + 'static,
    node: Arc<Node>,
    rate: Rate,
) -> Response<Body> {
    let (state, waiting) = (State::Answering(Box::pin(answer)), BytesMut::new());
    let mut response = Response::new(
        Padded {
            node,
            state,
            rate,
            waiting,
            room: None,
            ticks: Ticks::default(),
            ticked: 0,
            frame: None,
            leaving: false,
        }
        .boxed_unsync(),
    );
    response.headers_mut().insert(PAD_HEADER, HeaderValue::from_static("1"));
    response
}

struct Padded {
    node: Arc<Node>,
    state: State,
    rate: Rate,
    /// What was not sent yet.
    waiting: BytesMut,
    /// For all of it, until it has gone.
    room: Option<Room>,
    ticks: Ticks,
    /// How many there were.
    ticked: u32,
    /// For the next one, which is near.
    frame: Option<Bytes>,
    /// A frame was handed over in the last poll, and may not be with the kernel yet.
    leaving: bool,
}

enum State {
    Answering(Answering),
    Answer(Body, Box<Tally>),
    /// All of it is waiting or sent.
    Ending(Option<SignedReceipt>),
    Ended,
}

impl Padded {
    /// Takes what there is of the answer.
    fn pull(&mut self, cx: &mut Context<'_>) {
        while self.waiting.len() < self.most_waiting() {
            match &mut self.state {
                State::Answering(answer) => {
                    let Poll::Ready(response) = answer.as_mut().poll(cx) else { return };
                    let (mut parts, body) = response.into_parts();
                    self.waiting.extend_from_slice(&head(&parts));
                    self.room = parts.extensions.remove();
                    let account = parts.extensions.remove::<Account>();
                    self.state = State::Answer(body, Box::new(Tally::new(Arc::clone(&self.node), account)));
                }
                State::Answer(body, tally) => match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(frame)) => {
                        if let Some(bytes) = frame.ok().and_then(|frame| frame.into_data().ok()) {
                            tally.add(&bytes);
                            self.waiting.extend_from_slice(&bytes);
                        }
                    }
                    Poll::Ready(None) => self.state = State::Ending(tally.receipt()),
                },
                State::Ending(_) | State::Ended => return,
            }
        }
    }

    /// No more of an answer waits for its turn; the rest waits where it is made, and may be put together there.
    fn most_waiting(&self) -> usize {
        match self.rate {
            Rate::Text => 2 * CELL_CONTENT,
            Rate::Vectors => usize::MAX,
        }
    }

    /// Cells of the next tick.
    fn cells(&self) -> usize {
        let left = self.waiting.len().div_ceil(CELL_CONTENT) + 1; // and the one that ends it
        match self.rate {
            Rate::Text => 1,
            Rate::Vectors if left > MANY * SECOND as usize => left.next_power_of_two(),
            Rate::Vectors => MANY,
        }
    }

    fn next_frame(&mut self) -> Bytes {
        let cells = self.cells();
        let mut frame = BytesMut::with_capacity(cells * CELL_LEN);
        (0..cells).for_each(|_| frame.extend_from_slice(&encode_cell(&self.next_cell())));
        frame.freeze()
    }

    fn next_cell(&mut self) -> Cell {
        if !self.waiting.is_empty() {
            let len = self.waiting.len().min(CELL_CONTENT);
            return Cell::Content(self.waiting.split_to(len).to_vec());
        }
        let State::Ending(receipt) = &mut self.state else {
            return Cell::Content(Vec::new());
        };
        let receipt = receipt.take();
        self.state = State::Ended;
        receipt.map_or(Cell::End, |receipt| Cell::Receipt(receipt.encode()))
    }
}

/// Status and headers, as the client will see them.
fn head(parts: &Parts) -> Vec<u8> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: serde_json::Map<_, _> =
        parts.headers.iter().map(|(name, value)| (name.to_string(), text(value).into())).collect();
    let head = json!({ "status": parts.status.as_u16(), "headers": headers }).to_string();
    let len = u16::try_from(head.len()).unwrap_or_default(); // ours are some hundred bytes
    [&len.to_be_bytes(), head.as_bytes()].concat()
}

impl HttpBody for Padded {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        // Whoever sends it has its turn before anything is done for the next one, which may take long.
        if std::mem::take(&mut this.leaving) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.frame.is_none() {
            // Of the first nothing depends, not even its time.
            if this.ticked > 0 {
                this.pull(cx);
            }
            if matches!(this.state, State::Ended) && this.ticked.is_multiple_of(SECOND) {
                return Poll::Ready(None);
            }
            ready!(this.ticks.poll_nearly(cx));
            this.frame = Some(this.next_frame());
        }
        ready!(this.ticks.poll(this.node.moments(), cx));
        this.ticked = this.ticked.wrapping_add(1);
        this.leaving = true;
        Poll::Ready(this.frame.take().map(|frame| Ok(Frame::data(frame))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::respond::whole;
    use crate::node::Claims;
    use cocoon_attestation::wire::Cells;
    use cocoon_attestation::{Digest, UnixTime};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    fn node() -> Arc<Node> {
        let digest = Digest([0; 32]);
        let claims = Claims { models: vec![digest], config: digest, release: digest };
        Arc::new(Node::boot(claims, Arc::new(|| UnixTime(1))).unwrap())
    }

    /// Lengths of the frames of an answer, and what is in them.
    async fn sent(answer: Vec<u8>, rate: Rate) -> (Vec<usize>, Vec<u8>) {
        let response = Response::new(whole(answer.into()));
        let mut body = padded(async { response }, node(), rate).into_body();
        let (mut cells, mut lens, mut content) = (Cells::default(), Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let bytes = frame.unwrap().into_data().unwrap();
            lens.push(bytes.len());
            for cell in cells.push(&bytes).unwrap() {
                if let Cell::Content(more) = cell {
                    content.extend(more);
                }
            }
        }
        assert!(cells.ended());
        (lens, content)
    }

    #[tokio::test]
    async fn frames_say_seconds_and_of_many_vectors_a_power_of_two() {
        let large: Vec<u8> = (0..=250).cycle().take(10_000_000).collect();
        let (one, few, many) = tokio::join!(
            sent(vec![7; 3000], Rate::Text),
            sent(vec![7; 3000], Rate::Vectors),
            sent(large.clone(), Rate::Vectors)
        );
        assert_eq!(one.0, [CELL_LEN; 20]);
        assert_eq!(few.0, [16 * CELL_LEN; 20]);
        assert!(one.1.ends_with(&[7; 3000]) && one.1 == few.1);
        assert_eq!(many.0.len(), 20);
        // 19,608 cells.
        assert_eq!(
            many.0.iter().filter(|len| **len != 16 * CELL_LEN).collect::<Vec<_>>(),
            [&(32_768 * CELL_LEN)]
        );
        assert!(many.1.ends_with(&large));
    }

    #[tokio::test]
    async fn the_first_cell_leaves_before_anything_is_computed() {
        let begun = Arc::new(AtomicBool::new(false));
        let answer = {
            let begun = Arc::clone(&begun);
            async move {
                begun.store(true, Ordering::Relaxed);
                Response::new(whole(vec![7; 30].into()))
            }
        };
        let mut body = padded(answer, node(), Rate::Text).into_body();
        let mut poll = || {
            let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            (polled.is_ready(), begun.load(Ordering::Relaxed))
        };
        assert_eq!(poll(), (true, false));
        assert_eq!(poll(), (false, false), "who sends it has a turn");
        assert_eq!(poll(), (false, true));
    }
}
