"""One file per channel: each turns a message into what its service accepts."""
