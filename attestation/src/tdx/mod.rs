//! Intel TDX: quotes and what Intel endorses about the platforms that made them.
