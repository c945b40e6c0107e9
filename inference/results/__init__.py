"""What is made of draws: functionals, trees, runs, and what is estimated beside them."""
