"""Methods: how a network is built, trained and used for prediction; one class and one ``configs/method`` file each."""
