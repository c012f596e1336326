//! Answers without padding: as they are, and behind them the receipt as a trailer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cocoon_attestation::wire::RECEIPT_TRAILER;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};

use super::account::{Account, Tally};
use super::respond::{Body, Room};
use crate::node::Node;

/// Ends the body with a receipt, if something was computed for it.
pub(super) fn receipted(response: Response<Body>, node: Arc<Node>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let tally = Tally::new(node, parts.extensions.remove::<Account>());
    let room = parts.extensions.remove();
    Response::from_parts(parts, Receipted { body, tally: Some(tally), _room: room }.boxed_unsync())
}

struct Receipted {
    body: Body,
    /// Taken at the end.
    tally: Option<Tally>,
    /// For all of it, until it has gone.
    _room: Option<Room>,
}

impl HttpBody for Receipted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            if let (Ok(frame), Some(tally)) = (&frame, &mut this.tally) {
                frame.data_ref().into_iter().for_each(|bytes| tally.add(bytes));
            }
            return Poll::Ready(Some(frame));
        }
        let receipt = this.tally.take().and_then(|tally| tally.receipt());
        let trailer = receipt.and_then(|receipt| HeaderValue::try_from(hex::encode(receipt.encode())).ok());
        Poll::Ready(trailer.map(|receipt| {
            let mut trailers = HeaderMap::new();
            trailers.insert(RECEIPT_TRAILER, receipt);
            Ok(Frame::trailers(trailers))
        }))
    }
}
