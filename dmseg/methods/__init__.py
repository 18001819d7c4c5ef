"""Methods: how a network is made, trained and asked, each one class and one file of ``configs/method`` (floor 2)."""
