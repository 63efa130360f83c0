"""The protocol without the kernel: workers, wire and platform, every state of them."""
