"""HTTP libraries behind one protocol; imported when a Router first needs one."""
