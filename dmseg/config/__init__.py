"""What a study is: typed settings, their composition and checks, and where the dotted name of a component leads."""
